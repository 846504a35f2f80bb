#include "parallel/mesh.h"

#include <utility>

#include "runtime/error.h"

namespace longspan {

Mesh::Mesh(std::unique_ptr<Communicator> world, int64_t dp, int64_t cp) : world_(std::move(world)) {
  const int64_t size = world_->size();
  const int64_t replicas = dp == 0 && cp > 0 ? size / cp : dp;
  if (cp < 1 || replicas < 1 || replicas * cp != size) {
    Fail(ExitCode::kConfig, "parallel.cp = {}, parallel.dp = {}: their product must be the number of ranks, found {}{}",
         cp, dp, size, dp == 0 ? " (dp = 0 takes ranks / cp)" : "");
  }
  const int rank = world_->rank();
  cp_ = world_->Split(static_cast<int>(rank / cp), rank);
  dp_ = world_->Split(static_cast<int>(rank % cp), rank);
}

}  // namespace longspan
