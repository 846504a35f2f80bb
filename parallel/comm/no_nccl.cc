// The NCCL communicator of a build without CUDA.
#include "parallel/comm/nccl.h"

namespace longspan {

bool HasNccl() { return false; }
std::string NcclVersion() { return ""; }
void AbortNccl() {}
std::string PollNccl() { return ""; }

std::unique_ptr<Communicator> MakeNcclCommunicator(std::unique_ptr<Communicator>, Device&) {
  Fail(ExitCode::kConfig, "parallel.transport = NCCL: this program was built without NCCL; set it to AUTO or STAGED");
}

}  // namespace longspan
