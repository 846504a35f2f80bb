// A job in which one rank fails while the others wait for it: failing_rank RANK [gpu]. Run by failing_rank_test.sh and
// gpu_failures_test.sh.
#include <mpi.h>

#include <cstdlib>
#include <string_view>

#include "launch/job/binding.h"
#include "launch/job/world.h"
#include "parallel/comm/comm.h"
#include "parallel/comm/nccl.h"
#include "runtime/error.h"
#include "runtime/memory.h"

namespace longspan {
namespace {

void FailIf(bool failing) {
  if (failing) Fail(ExitCode::kData, "wrong on one rank");
}

// The others wait inside NCCL, in a transfer after one that all took part in.
void MeetOnGpus(bool failing) {
  const Binding binding = BindRank(DeviceKind::kGpu, true);
  const auto world = MakeDeviceCommunicator(MakeMpiWorld(), *binding.device, Transport::kNccl);
  const auto stream = binding.device->MakeStream("meeting");
  const Buffer memory(*binding.device, 4, "meeting");
  const Tensor number(memory.data(), DType::kF32, DeviceKind::kGpu, {1});
  const NcclGuard guard;
  binding.device->FillBytes(*stream, number, 0);
  world->AllReduce(*stream, number, ReduceOp::kSum);
  stream->Synchronize();
  FailIf(failing);
  world->AllReduce(*stream, number, ReduceOp::kSum);
  stream->Synchronize();
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) {
  return longspan::RunAndReport([&] {
    const longspan::World world;
    const int failing = argc > 1 ? std::atoi(argv[1]) : -1;
    if (failing == world.size()) longspan::Fail(longspan::ExitCode::kConfig, "wrong on every rank");
    if (argc > 2 && std::string_view(argv[2]) == "gpu") longspan::MeetOnGpus(failing == world.rank());
    longspan::FailIf(failing == world.rank());
    MPI_Barrier(MPI_COMM_WORLD);
    return 0;
  });
}
