#include "launch/job/job.h"

#include <fmt/format.h>

#include "parallel/comm/rank_order.h"
#include "runtime/memory.h"
#include "runtime/place.h"

namespace longspan {
namespace {

std::string PlacementText(const std::vector<RankPlace>& places, const Mesh& mesh, const Environment& environment) {
  const std::string warnings = DifferentEnvironment(mesh.host_world(), environment);
  return fmt::format("{}  environment {}\n{}{}", PlacementTable(places), EnvironmentText(environment),
                     NeedlessSplit(places, mesh.cp_size()), warnings);
}

}  // namespace

Job::Job(DeviceKind device, const ParallelConfig& parallel, const CommConfig& limits)
    : watchdog_(limits),
      binding_(BindRank(device, parallel.share_gpu)),
      mesh_(MakeMpiWorld(), parallel.dp, parallel.cp, *binding_.device, parallel.transport),
      placement_(PlacementText(binding_.places, mesh_, environment_)) {}

int64_t Job::MemoryBytes() const {
  return device().kind() == DeviceKind::kCpu ? AnonymousBytes() : available_ - device().AvailableBytes();
}

std::vector<double> Job::Reduce(std::span<const Number> numbers) {
  const auto stage = InStage("agreement");
  Communicator& world = mesh_.host_world();
  const auto count = static_cast<int64_t>(numbers.size());
  std::vector<double> own, all(world.size() * count);  // all [P,count]
  for (const Number& number : numbers) own.push_back(number.value);
  world.AllGather(*host_stream_, HostView(own.data(), {count}), HostView(all.data(), {world.size() * count}));
  host_stream_->Synchronize();
  for (int64_t i = 0; i < count; ++i) {
    std::vector<const void*> parts;
    for (int rank = 0; rank < world.size(); ++rank) parts.push_back(&all[rank * count + i]);
    ReduceInOrder(DType::kF64, numbers[i].op, parts, &own[i], 1);
  }
  return own;
}

}  // namespace longspan
