// Whether what is planned fits in memory, asked before any of it is taken.
#pragma once

#include <string>

#include "launch/config/run_config.h"
#include "launch/job/job.h"

namespace longspan {

// What one rank will take.
struct PlannedMemory {
  int64_t device = 0;
  int64_t host = 0;  // page-locked, for what is offloaded
};

// Collective. Throws Error (rank failed) with the sizes and what to change when it does not fit: on a GPU what a rank
// takes of it; on a CPU, and of host memory, what all ranks of a node take together.
void RequireFit(const Job& job, const RunConfig& config, const PlannedMemory& planned);

// What makes a run smaller, of what is not so already: "set train.recompute to .., or ..".
std::string SmallerMemory(const RunConfig& config, DeviceKind device);

}  // namespace longspan
