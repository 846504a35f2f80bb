#include "parallel/comm/mesh.h"

#include <utility>

#include "runtime/error.h"

namespace longspan {

Mesh::Groups Mesh::Cut(std::shared_ptr<Communicator> world, int64_t cp, bool share) {
  const int rank = world->rank(), size = world->size();
  const auto group = [&](int64_t ranks, int64_t color) {
    return share && ranks == size ? world : std::shared_ptr(world->Split(static_cast<int>(color), rank));
  };
  return {.world = world, .cp = group(cp, rank / cp), .dp = group(size / cp, rank % cp)};
}

Mesh::Mesh(std::unique_ptr<Communicator> host_world, int64_t dp, int64_t cp) {
  const int64_t size = host_world->size();
  const int64_t replicas = dp == 0 && cp > 0 ? size / cp : dp;
  if (cp < 1 || replicas < 1 || replicas * cp != size) {
    Fail(ExitCode::kConfig, "parallel.cp = {}, parallel.dp = {}: their product must be the number of ranks, found {}{}",
         cp, dp, size, dp == 0 ? " (dp = 0 takes ranks / cp)" : "");
  }
  host_ = Cut(std::move(host_world), cp, /*share=*/false);
  tensors_ = host_;
}

Mesh::Mesh(std::unique_ptr<Communicator> host_world, int64_t dp, int64_t cp, Device& device, Transport transport)
    : Mesh(std::move(host_world), dp, cp) {
  if (device.kind() == DeviceKind::kCpu) return;
  Communicator& world = *host_.world;
  // NCCL takes memory for each communicator, and one stream serves all transfers of a rank.
  tensors_ = Cut(MakeDeviceCommunicator(world.Split(0, world.rank()), device, transport), cp, /*share=*/true);
}

}  // namespace longspan
