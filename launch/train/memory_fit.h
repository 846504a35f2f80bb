// Whether what is planned fits in memory, asked before any of it is taken.
#pragma once

#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/job/job.h"
#include "model/network/session.h"
#include "model/training/optimizer.h"
#include "runtime/memory.h"

namespace longspan {

// What one rank will take.
struct PlannedMemory {
  int64_t device = 0;
  int64_t host = 0;    // page-locked, and files in memory
  int64_t shared = 0;  // of it, files in memory
};

// Of the host besides: what is offloaded, copies on their way into checkpoints, and `shared` bytes of files in memory.
// `optimizer` has reserved its own.
std::vector<HostMemory> PlannedHostMemory(Session& session, const Optimizer& optimizer, const RunConfig& config,
                                          int64_t shared);
// With the files of a job on one node.
std::vector<HostMemory> PlannedHostMemory(Session& session, const Optimizer& optimizer, const RunConfig& config);
int64_t SumOf(const std::vector<HostMemory>& host);

// Collective. Throws Error (rank failed) with the sizes and what to change when it does not fit: on a GPU what a rank
// takes of it; on a CPU, and of host memory, what all ranks of a node take together. Files in memory lie in the folder
// `shared`, where those that are there already will be replaced; (configuration) when its file system is too small.
void RequireFit(const Job& job, const RunConfig& config, const PlannedMemory& planned, const std::string& shared);

// What makes a run smaller, of what is not so already: "set train.recompute to .., or ..".
std::string SmallerMemory(const RunConfig& config, DeviceKind device);

}  // namespace longspan
