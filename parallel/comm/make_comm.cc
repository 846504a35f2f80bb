// Which communicator serves a device.
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>

#include "parallel/comm/nccl.h"

namespace longspan {

std::unique_ptr<Communicator> MakeDeviceCommunicator(std::unique_ptr<Communicator> host, Device& device,
                                                     Transport transport) {
  const bool gpu = device.kind() == DeviceKind::kGpu;
  if (transport == Transport::kStaged || (gpu && transport == Transport::kAuto && !HasNccl())) {
    return MakeStagedCommunicator(std::move(host), device);
  }
  return gpu ? MakeNcclCommunicator(std::move(host), device) : std::move(host);
}

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
