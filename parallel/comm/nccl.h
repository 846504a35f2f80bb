// NCCL: what it reads from the environment.
#pragma once

#include <string>

namespace longspan {

bool HasNccl();             // this build, and with it transfers between GPUs: gpu_comm.cc or no_gpu_comm.cc
std::string NcclVersion();  // that runs: "NCCL 2.21.5"; "" of a build without

// Sets what NCCL reads from the environment, for this process; before its first communicator. NVLink multicast
// (NCCL_NVLS_ENABLE) is off unless set. NCCL refuses two ranks on one GPU of one host: `shared_gpus` gives every rank a
// host name of its own and lets them meet over the loopback device, so all ranks must be on one node. Throws Error
// (configuration) where the environment has transfers that are enqueued after NCCL's call has returned.
void PrepareNccl(int world_rank, bool shared_gpus);

}  // namespace longspan
