// Which rank computes where: GPUs are given out by the rank's place on its node, and CPU cores near them.
//
// Cores: where the launcher bound a rank, that stays. Otherwise the ranks of a node share its cores evenly, in whole
// cores; on GPUs each the cores near its own, with the ranks whose GPUs are near the same ones. Nobody is bound where
// ranks outnumber cores, where hwloc cannot tell, or by LONGSPAN_BIND=0 in the environment. Memory follows, by first
// touch. Unless OMP_NUM_THREADS says otherwise, a rank gets one thread for each CPU that is its own; ranks with the
// same CPUs share them out.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/job/placement.h"
#include "runtime/device.h"

namespace longspan {

struct Binding {
  std::unique_ptr<Device> device;
  std::vector<RankPlace> places;  // of all ranks, on each
};

// Collective over all ranks, before threads are started and before anything else touches a GPU or NCCL, whose
// environment it prepares (PrepareNccl). Ranks of a node that see the same GPUs take them in turn; a launcher may also
// show each rank GPUs of its own. Throws Error (configuration) where ranks outnumber GPUs, unless `share_gpu`.
Binding BindRank(DeviceKind kind, bool share_gpu);

// The GPU of the `place`-th of `ranks` ranks that see the same `gpus` GPUs.
int ChooseGpu(const std::string& node, int place, int ranks, int gpus, bool share_gpu);

}  // namespace longspan
