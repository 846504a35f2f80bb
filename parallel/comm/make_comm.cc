// Which communicator serves a device.
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

}  // namespace longspan
