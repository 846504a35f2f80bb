// How selected rows travel where parallel.selected_exchange = AUTO leaves it open.
#pragma once

#include <functional>
#include <string>

#include "launch/config/run_config.h"
#include "launch/job/job.h"
#include "model/network/session.h"
#include "model/training/micro_step.h"

namespace longspan {

// Whether there is anything to choose.
bool ChoosesExchange(const RunConfig& config, const Job& job);
// And whether it is measured again after `steps` steps: 10, 100, 1000, ..
bool ChoosesExchangeAfter(int64_t steps);

// Collective. Measures `pass` (forward and backward of a step, which has run) both ways, has all layers of the model
// take the faster, and returns the line that says so. What is measured is a whole pass, so that coverage, rates, what
// kernels hide and the host's waits all count as they weigh; for all layers at once, as a step in which one layer
// fetches waits on the host like any other and cannot be a graph, and the exposed part of one layer's transfers is not
// its own. GATHER is measured as it would run, with the graphs that `choose_graphs` (of a model that gathers) finds;
// FETCH must be 3% faster. Which it is may differ from run to run, bits do not. Gradients are left with sums of no
// meaning.
std::string ChooseExchange(Job& job, Session& session, MicroStep& micro_step, const std::function<void()>& pass,
                           const std::function<void()>& choose_graphs);

}  // namespace longspan
