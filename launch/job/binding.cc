#include "launch/job/binding.h"

#include <mpi.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "launch/job/cores.h"
#include "launch/job/world.h"
#include "parallel/comm/comm.h"
#include "parallel/comm/nccl.h"
#include "parallel/comm/texts.h"
#include "runtime/count.h"
#include "runtime/error.h"

namespace longspan {
namespace {

// The ranks that share this one's machine.
std::unique_ptr<Communicator> NodeOf(Communicator& world) {
  MPI_Comm node = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  int first = world.rank();
  MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, node);
  MPI_Comm_free(&node);
  return world.Split(first, world.rank());
}

// This rank's number among the ranks of its node that say the same.
struct Seat {
  int index = 0;
  int ranks = 0;
};

Seat FindSeat(const std::string& said, Communicator& node) {
  const std::vector<std::string> all = GatherTexts(node, said);
  Seat seat;
  for (int other = 0; other < node.size(); ++other) {
    if (all[other] != said) continue;
    if (other < node.rank()) ++seat.index;
    ++seat.ranks;
  }
  return seat;
}

int TakeGpu(int rank, bool share_gpu, Communicator& node) {
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  const Seat seat = FindSeat(visible ? visible : "all", node);
  const int gpus = GpuCount();
  const int gpu = ChooseGpu(NodeName(), seat.index, seat.ranks, gpus, share_gpu);
  const int shared = seat.ranks > gpus ? 1 : 0;
  int any_shared = 0;
  MPI_Allreduce(&shared, &any_shared, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  PrepareNccl(rank, any_shared != 0);
  return gpu;
}

// Binds this rank to its share of `cpus`, unless someone did so before or does not want it. Returns who bound it.
const char* BindCores(const CoreMap& map, const std::string& cpus, Communicator& node) {
  const Seat seat = FindSeat(cpus, node);
  if (map.Bound()) return "by launcher";
  const char* const wanted = std::getenv("LONGSPAN_BIND");
  if (wanted && std::string_view(wanted) == "0") return "unbound";
  const std::string share = map.Share(cpus, seat.index, seat.ranks);
  if (share.empty() || share == map.Own()) return "unbound";
  return map.Bind(share) ? "by longspan" : "unbound";
}

void ShareThreads(const std::string& cpus, Communicator& node) {
  const Seat seat = FindSeat(cpus, node);
  if (std::getenv("OMP_NUM_THREADS")) return;
  omp_set_num_threads(std::max(1, omp_get_num_procs() / seat.ranks));
}

std::string Versions(bool on_gpu) {
  std::string text = MpiVersion();
  if (!on_gpu) return text;
  if (const std::string nccl = NcclVersion(); !nccl.empty()) text += ", " + nccl;
  if (const std::string driver = DriverVersion(); !driver.empty()) text += ", driver " + driver;
  return text;
}

}  // namespace

int ChooseGpu(const std::string& node, int place, int ranks, int gpus, bool share_gpu) {
  if (gpus == 0) Fail(ExitCode::kConfig, "device gpu: {} has no GPU that this program can use", node);
  if (ranks > gpus && !share_gpu) {
    Fail(ExitCode::kConfig,
         "{} has {} ranks for {}: every rank needs its own; start {} on a node, or set parallel.share_gpu to "
         "true (for tests: slow)",
         node, ranks, Count(gpus, "GPU"), Count(gpus, "rank"));
  }
  return place % gpus;
}

Binding BindRank(DeviceKind kind, bool share_gpu) {
  const auto world = MakeMpiWorld();
  const auto node = NodeOf(*world);

  // Cores first: the device's threads and page-locked memory follow them.
  const bool on_gpu = kind == DeviceKind::kGpu;
  const int gpu = on_gpu ? TakeGpu(world->rank(), share_gpu, *node) : 0;
  const CoreMap map;
  const std::string near = on_gpu ? map.Near(GpuAddress(gpu)) : "";
  const char* const bound = BindCores(map, near.empty() ? map.Allowed() : near, *node);
  const std::string own = map.Own();
  ShareThreads(own, *node);

  Binding binding;
  binding.device = on_gpu ? MakeGpuDevice(gpu) : MakeCpuDevice();
  binding.places = GatherPlaces(*world, {.node = NodeName(),
                                         .device = binding.device->name(),
                                         .bus = on_gpu ? GpuAddress(gpu) : "",
                                         .cpus = own,
                                         .numa = map.Nodes(own),
                                         .gpu_numa = map.Nodes(near),
                                         .bound = bound,
                                         .versions = Versions(on_gpu)});
  return binding;
}

}  // namespace longspan
