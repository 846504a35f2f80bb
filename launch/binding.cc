#include "launch/binding.h"

#include <mpi.h>
#include <sched.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "parallel/comm.h"
#include "runtime/error.h"

namespace longspan {
namespace {

constexpr int kText = 256;  // bytes of a line that ranks tell each other
using Text = std::array<char, kText>;

Text Cut(const std::string& text) {
  Text cut{};
  std::strncpy(cut.data(), text.c_str(), kText - 1);
  return cut;
}

std::vector<Text> GatherTexts(const std::string& text, MPI_Comm comm) {
  int size = 0;
  MPI_Comm_size(comm, &size);
  std::vector<Text> all(size);
  const Text own = Cut(text);
  MPI_Allgather(own.data(), kText, MPI_CHAR, all.data(), kText, MPI_CHAR, comm);
  return all;
}

std::string NodeName() {
  char name[MPI_MAX_PROCESSOR_NAME] = "";
  int length = 0;
  MPI_Get_processor_name(name, &length);
  return {name, static_cast<size_t>(length)};
}

std::string CpuCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return "unknown";
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return Ranges(cores);
}

// Of this rank among those of its node that see the same GPUs.
struct Place {
  int index = 0;
  int ranks = 0;
};

Place FindPlace() {
  MPI_Comm node = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  int rank = 0;
  MPI_Comm_rank(node, &rank);
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  const std::vector<Text> seen = GatherTexts(visible ? visible : "all", node);
  MPI_Comm_free(&node);
  Place place;
  for (int other = 0; other < static_cast<int>(seen.size()); ++other) {
    if (seen[other] != seen[rank]) continue;
    if (other < rank) ++place.index;
    ++place.ranks;
  }
  return place;
}

std::unique_ptr<Device> BindGpu(int rank, bool share_gpu) {
  const Place place = FindPlace();
  const int gpus = GpuCount();
  const int gpu = ChooseGpu(NodeName(), place.index, place.ranks, gpus, share_gpu);
  const int shared = place.ranks > gpus ? 1 : 0;
  int any_shared = 0;
  MPI_Allreduce(&shared, &any_shared, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  PrepareNccl(rank, any_shared != 0);
  return MakeGpuDevice(gpu);
}

}  // namespace

int ChooseGpu(const std::string& node, int place, int ranks, int gpus, bool share_gpu) {
  if (gpus == 0) Fail(ExitCode::kConfig, "device gpu: {} has no GPU that this program can use", node);
  if (ranks > gpus && !share_gpu) {
    Fail(
        ExitCode::kConfig,
        "{} has {} ranks for {} GPUs: every rank needs its own; start {} ranks on a node, or set parallel.share_gpu to "
        "true (for tests: slow)",
        node, ranks, gpus, gpus);
  }
  return place % gpus;
}

std::string Ranges(const std::vector<int>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size(); ++i) {
    const size_t first = i;
    while (i + 1 < numbers.size() && numbers[i + 1] == numbers[i] + 1) ++i;
    text += fmt::format("{}{}", text.empty() ? "" : ",", numbers[first]);
    if (i > first) text += fmt::format("-{}", numbers[i]);
  }
  return text;
}

Binding BindRank(DeviceKind kind, bool share_gpu) {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  Binding binding;
  binding.device = kind == DeviceKind::kGpu ? BindGpu(rank, share_gpu) : MakeCpuDevice();
  const std::vector<Text> lines = GatherTexts(
      fmt::format("{:>6}  {:<16} {:<32} {}", rank, NodeName(), binding.device->name(), CpuCores()), MPI_COMM_WORLD);
  if (rank != 0) return binding;
  binding.table = fmt::format("  {:>6}  {:<16} {:<32} {}\n", "rank", "node", "device", "cores");
  for (const Text& line : lines) binding.table += fmt::format("  {}\n", line.data());
  return binding;
}

}  // namespace longspan
