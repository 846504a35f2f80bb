// The communicator on GPU memory of a build without CUDA.
#include "parallel/comm/gpu_comm.h"
#include "parallel/comm/nccl.h"

namespace longspan {

bool HasNccl() { return false; }
std::string NcclVersion() { return ""; }
void AbortTransfers() {}
std::string PollTransfers() { return ""; }

std::unique_ptr<Communicator> MakeGpuCommunicator(std::unique_ptr<Communicator>, Device&, Transport transport) {
  Fail(ExitCode::kConfig,
       "parallel.transport = {}: this program was built without CUDA and NCCL; set it to AUTO or STAGED",
       TransportName(transport));
}

}  // namespace longspan
