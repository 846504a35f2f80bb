#include "parallel/comm/nccl.h"

#include <cstdlib>
#include <string>
#include <string_view>

#include "runtime/error.h"

namespace longspan {

void PrepareNccl(int world_rank, bool shared_gpus) {
  // A transfer is in its stream when NCCL's call returns.
  const char* const blocking = std::getenv("NCCL_COMM_BLOCKING");
  if (blocking && std::string_view(blocking) == "0") {
    Fail(ExitCode::kConfig,
         "NCCL_COMM_BLOCKING = 0: NCCL's calls must enqueue their transfers before they return; unset it");
  }
  const auto set = [](const char* name, const std::string& value) { setenv(name, value.c_str(), /*overwrite=*/0); };
  set("NCCL_NVLS_ENABLE", "0");
  if (!shared_gpus) return;
  set("NCCL_HOSTID", "rank" + std::to_string(world_rank));
  set("NCCL_SOCKET_IFNAME", "lo");
  set("NCCL_IB_DISABLE", "1");
}

}  // namespace longspan
