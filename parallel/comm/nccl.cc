#include "parallel/comm/nccl.h"

#include <cstdlib>
#include <exception>
#include <string>

namespace longspan {

NcclGuard::NcclGuard() : exceptions_(std::uncaught_exceptions()) {}

NcclGuard::~NcclGuard() {
  if (std::uncaught_exceptions() > exceptions_) AbortNccl();
}

void PrepareNccl(int world_rank, bool shared_gpus) {
  const auto set = [](const char* name, const std::string& value) { setenv(name, value.c_str(), /*overwrite=*/0); };
  set("NCCL_NVLS_ENABLE", "0");
  if (!shared_gpus) return;
  set("NCCL_HOSTID", "rank" + std::to_string(world_rank));
  set("NCCL_SOCKET_IFNAME", "lo");
  set("NCCL_IB_DISABLE", "1");
}

}  // namespace longspan
