#include "launch/train/memory_fit.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <sstream>

#include "launch/checkpoint/checkpoint.h"
#include "launch/job/world.h"
#include "parallel/comm/texts.h"
#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/memory.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

struct Share {
  int64_t bytes = 0;
  int ranks = 0;
};

int64_t BytesOfFiles(const std::string& folder) {
  int64_t sum = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    std::error_code gone;
    const auto bytes = at->is_regular_file(gone) ? at->file_size(gone) : 0;
    if (!gone) sum += static_cast<int64_t>(bytes);
  }
  return sum;
}

int64_t FreeBytes(const fs::path& folder) {
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  return error ? 0 : static_cast<int64_t>(std::min<uintmax_t>(space.available, INT64_MAX / 2));
}

// Of all ranks on this one's node.
Share OnThisNode(Communicator& world, int64_t bytes) {
  Share sum;
  for (const std::string& text : GatherTexts(world, fmt::format("{} {}", bytes, NodeName()))) {
    std::istringstream said(text);
    int64_t other = 0;
    std::string node;
    said >> other >> node;
    if (node != NodeName()) continue;
    sum.bytes += other;
    ++sum.ranks;
  }
  return sum;
}

}  // namespace

std::vector<HostMemory> PlannedHostMemory(Session& session, const Optimizer& optimizer, const RunConfig& config,
                                          int64_t shared) {
  return {{"offloaded", session.model().offloaded_bytes()},
          {"checkpoints", CopyBytes(config.checkpoint, optimizer)},
          {"memory tier", shared}};
}

std::vector<HostMemory> PlannedHostMemory(Session& session, const Optimizer& optimizer, const RunConfig& config) {
  return PlannedHostMemory(session, optimizer, config, MemoryTierBytes(config.checkpoint, optimizer.own_state_bytes()));
}

int64_t SumOf(const std::vector<HostMemory>& host) {
  return std::accumulate(host.begin(), host.end(), int64_t{0},
                         [](int64_t sum, const HostMemory& part) { return sum + part.bytes; });
}

void RequireFit(const Job& job, const RunConfig& config, const PlannedMemory& planned, const std::string& shared) {
  const DeviceKind device = job.device().kind();
  const bool gpu = device == DeviceKind::kGpu;
  const int64_t free = AvailableHostBytes(), own = job.device().AvailableBytes(), files = BytesOfFiles(shared);
  const int64_t host = free >= 0 ? free + files : -1;
  // Nobody takes any before all ranks have come here.
  Communicator& world = job.mesh().host_world();
  const Share node = OnThisNode(world, gpu ? planned.host : planned.device + planned.host);
  const Share in_files = OnThisNode(world, planned.shared);
  if (gpu && planned.device > own) {
    Fail(ExitCode::kRankFailed, "out of GPU memory: the run takes {} of each GPU, {} has {} free; {}",
         FormatBytes(planned.device), job.device().name(), FormatBytes(own), SmallerMemory(config, device));
  }
  if (host >= 0 && node.bytes > host) {
    Fail(ExitCode::kRankFailed, "out of host memory: the {} of node {} take {} together, it has {} available; {}",
         node.ranks == 1 ? "rank" : fmt::format("{} ranks", node.ranks), NodeName(), FormatBytes(node.bytes),
         FormatBytes(host), SmallerMemory(config, device));
  }
  const fs::path place = fs::path(shared).parent_path();
  const int64_t space = FreeBytes(place) + files;
  if (in_files.bytes > space) {
    Fail(ExitCode::kConfig,
         "checkpoint.memory_interval = {}: {} on node {} has room for {}, the run keeps {} there; enlarge it (mount -o "
         "remount,size=.., docker run --shm-size=..), or set checkpoint.memory_interval to 0",
         config.checkpoint.memory_interval, place.string(), NodeName(), FormatBytes(space),
         FormatBytes(in_files.bytes));
  }
}

std::string SmallerMemory(const RunConfig& config, DeviceKind device) {
  const bool gpu = device == DeviceKind::kGpu;
  const KeepConfig& keep = config.train.keep;
  std::vector<std::string> cures = {"shorten data.sequence_length",
                                    fmt::format("raise parallel.cp with more {}", gpu ? "GPUs" : "nodes")};
  if (gpu && keep.recompute != Recompute::kNone && !keep.offload) cures.emplace_back("set train.offload to true");
  if (keep.recompute == Recompute::kNone) cures.emplace_back("set train.recompute to SELECTIVE or FULL");
  if (keep.recompute == Recompute::kSelective) cures.emplace_back("set train.recompute to FULL");
  return fmt::format("{}", fmt::join(cures, ", or "));
}

}  // namespace longspan
