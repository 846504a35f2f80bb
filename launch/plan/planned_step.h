// A training step of one rank before there is a machine: the program's own step on a planned device, which counts the
// work and drops it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/train/memory_fit.h"
#include "runtime/memory.h"
#include "runtime/tensor.h"
#include "runtime/trace.h"

namespace longspan {

struct PlannedRank {
  DeviceKind device = DeviceKind::kGpu;
  DType dtype = DType::kBf16;
  int64_t dp = 1;
  int64_t rank = 0;     // of all
  double coverage = 1;  // FETCH: share of the blocks of other ranks that a layer fetches
};

struct PlannedStep {
  int64_t parameters = 0;
  std::vector<MemoryRow> memory;
  std::vector<HostMemory> host_memory;
  int64_t device_bytes = 0;
  // Of a GPU besides. Scratch of products, loss and reductions, without that of compression, of the selected branch's
  // lists and of sums in parts, up to some 200 MiB. NCCL's where all ranks are of one machine; -1: unknown (NcclBytes).
  int64_t scratch_bytes = 0, nccl_bytes = 0;
  // By name: how often, FLOPs, and bytes (of a transfer those received) of one step, no seconds. One document a
  // sequence.
  std::map<std::string, SpanTotal> spans;
};

// For MemoryTable.
std::vector<std::pair<std::string, int64_t>> Besides(const PlannedStep& step);

// Of dp * cp ranks the one that a step asks most of: with contiguous parts one whose queries see most; of those the one
// whose share of the optimizer's state is largest.
int64_t BusiestRank(const RunConfig& config, int64_t dp);

// Resets this process's trace. Allocates addresses, no memory.
PlannedStep PlanStep(const RunConfig& config, const PlannedRank& rank);

// FLOPs of the step over all ranks, were every query to attend to all tokens before it: those of `spans`, which all
// ranks have, without the attention's, and for each layer with H heads S(S+1)/2 pairs of 2 (K + V) FLOPs forward and
// 2 (3K + 2V) backward.
double DenseEquivalentFlops(const RunConfig& config, const PlannedStep& step, int64_t ranks);

}  // namespace longspan
