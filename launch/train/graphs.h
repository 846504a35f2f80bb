// Whether forward and backward of the steps run as CUDA graphs.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "launch/config/run_config.h"
#include "launch/job/job.h"
#include "model/training/micro_step.h"

namespace longspan {

// A pass beside which launches are nothing, and which is tried once.
constexpr double kLongPassSeconds = 0.5;

// Collective: seconds of `pass`, of the slowest rank.
double PassSeconds(Job& job, Stream& compute, const std::function<void()>& pass);

// Collective, once `pass` (forward and backward of a step) has run. Tells `micro_step` and returns the line that says
// so, "" when there was no choice. runtime.graphs = AUTO takes graphs where they save 2% of the better of two tries,
// more than the tries differ by. A long pass is not bound by its launches: where one takes over half a second, or must
// by `least_seconds`, nothing more is tried. A run that resumes does as it did `before`. A pass that `fetches` waits on
// the host. Throws Error (configuration) where ON is not possible.
std::string ChooseGraphs(Job& job, const RunConfig& config, Stream& compute, MicroStep& micro_step, bool fetches,
                         const std::function<void()>& pass, double least_seconds, std::optional<bool> before);

}  // namespace longspan
