// `longspan train --dry-run`: everything that can be checked without MPI and a GPU, and the plan.
#pragma once

#include <cstdint>

#include "launch/config/run_config.h"

namespace longspan {

// Prints the ranks and their tokens, parameters, memory and data for `world` ranks; 0 = what parallel.cp and
// parallel.dp say. The configuration has no problems with that world. `device_memory`: bytes that each rank has of a
// device; 0 = those of the device that runtime.device names, where this machine has one.
//
// Throws Error once that is printed: when the data cannot be opened (io, data, configuration), when a token of it is
// outside the vocabulary (data), or when the plan does not fit (configuration).
void PrintPlan(const RunConfig& config, int64_t world, int64_t device_memory);

}  // namespace longspan
