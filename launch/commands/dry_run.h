// `longspan train --dry-run`: everything that can be checked without MPI and a GPU, and the plan.
#pragma once

#include <cstdint>

#include "launch/config/run_config.h"
#include "launch/train/run_folder.h"

namespace longspan {

struct PlanOptions {
  // Bytes that each rank has of a device; 0 = those of the device that runtime.device names, where this machine has
  // one.
  int64_t device_memory = 0;
  OlderRun older = OlderRun::kKeep;  // of the name
};

// Prints the ranks and their tokens, parameters, memory and data for `world` ranks; 0 = what parallel.cp and
// parallel.dp say. The configuration has no problems with that world.
//
// Throws Error once that is printed: when the data cannot be opened (io, data, configuration), when a token of it is
// outside the vocabulary (data), when the plan does not fit, or the run's name is taken (configuration); of a run that
// resumes, when its checkpoint is broken (data) or of another model, tokenizer or dataset (configuration).
void PrintPlan(const RunConfig& config, int64_t world, const PlanOptions& options);

}  // namespace longspan
