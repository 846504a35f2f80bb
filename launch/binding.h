// Which rank computes where: GPUs are given out by the rank's place on its node, CPU cores as the launcher bound them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/device.h"

namespace longspan {

struct Binding {
  std::unique_ptr<Device> device;
  std::string table;  // for the startup print, on rank 0: rank, node, device, CPU cores
};

// Collective over all ranks, before anything else touches a GPU or NCCL, whose environment it prepares (PrepareNccl).
// Ranks of a node that see the same GPUs take them in turn; a launcher may also show each rank GPUs of its own. Throws
// Error (configuration) where ranks outnumber GPUs, unless `share_gpu`.
Binding BindRank(DeviceKind kind, bool share_gpu);

// The GPU of the `place`-th of `ranks` ranks that see the same `gpus` GPUs.
int ChooseGpu(const std::string& node, int place, int ranks, int gpus, bool share_gpu);

// CPU numbers, ascending, as ranges: "0-3,8".
std::string Ranges(const std::vector<int>& numbers);

}  // namespace longspan
