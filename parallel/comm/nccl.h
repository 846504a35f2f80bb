// NCCL: the communicator on GPUs, what it reads from the environment, and its end when something fails.
#pragma once

#include <memory>
#include <string>

#include "parallel/comm/comm.h"

namespace longspan {

bool HasNccl();             // of this build: nccl_comm.cc or no_nccl.cc
std::string NcclVersion();  // that runs: "NCCL 2.21.5"; "" of a build without
// Every verb is work of the GPU's stream, the host does not wait. When a communicator goes while an exception
// passes, it ends what is under way instead of waiting for it.
std::unique_ptr<Communicator> MakeNcclCommunicator(std::unique_ptr<Communicator> host, Device& device);

// When it goes while an exception passes, every NCCL transfer of this process ends at once. Declared after all that
// owns GPU memory or streams, it goes first: freeing those waits for work under way, and that for peers that may never
// come. Only graphs with transfers in them go before the guard: NCCL does not end while they hold it.
class NcclGuard {
 public:
  NcclGuard();
  ~NcclGuard();
  NcclGuard(const NcclGuard&) = delete;
  NcclGuard& operator=(const NcclGuard&) = delete;

 private:
  int exceptions_;  // in flight at construction
};
void AbortNccl();

// Tells the flight recorder which transfers are done. Returns what NCCL says went wrong, "" for nothing. Any thread.
std::string PollNccl();

// Sets what NCCL reads from the environment, for this process; before its first communicator. NVLink multicast
// (NCCL_NVLS_ENABLE) is off unless set. NCCL refuses two ranks on one GPU of one host: `shared_gpus` gives every rank a
// host name of its own and lets them meet over the loopback device, so all ranks must be on one node. Throws Error
// (configuration) where the environment has transfers that are enqueued after NCCL's call has returned.
void PrepareNccl(int world_rank, bool shared_gpus);

}  // namespace longspan
