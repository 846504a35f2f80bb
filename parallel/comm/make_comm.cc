// Which communicator serves a device.
#include <utility>

#include "parallel/comm/gpu_comm.h"
#include "parallel/comm/nccl.h"

namespace longspan {

std::unique_ptr<Communicator> MakeDeviceCommunicator(std::unique_ptr<Communicator> host, Device& device,
                                                     Transport transport) {
  const bool gpu = device.kind() == DeviceKind::kGpu;
  if (transport == Transport::kStaged || (gpu && transport == Transport::kAuto && !HasNccl())) {
    return MakeStagedCommunicator(std::move(host), device);
  }
  return gpu ? MakeGpuCommunicator(std::move(host), device, transport) : std::move(host);
}

}  // namespace longspan
