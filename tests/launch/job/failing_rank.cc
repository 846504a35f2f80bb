// A job in which one rank fails while the others wait for it: failing_rank RANK [NCCL|PEER]. Run by
// failing_rank_test.sh and gpu_failures_test.sh.
#include <mpi.h>

#include <cstdlib>
#include <string_view>

#include "launch/job/job.h"
#include "launch/job/world.h"
#include "runtime/error.h"
#include "runtime/memory.h"

namespace longspan {
namespace {

void FailIf(bool failing) {
  if (failing) Fail(ExitCode::kData, "wrong on one rank");
}

// Freeing it waits for the work of its stream.
struct Meeting {
  explicit Meeting(Device& device) : memory(device, 4, "meeting"), stream(device.MakeStream("meeting")) {}
  Buffer memory;
  std::unique_ptr<Stream> stream;
};

// The others wait for a transfer after one that all took part in.
void MeetOnGpus(int ranks, Transport transport, bool failing) {
  Job job(DeviceKind::kGpu, {.cp = ranks, .transport = transport, .share_gpu = true});
  Communicator& world = job.mesh().world();
  const Meeting& meeting = job.Make<Meeting>(job.device());
  const Tensor number(meeting.memory.data(), DType::kF32, DeviceKind::kGpu, {1});
  job.device().FillBytes(*meeting.stream, number, 0);
  world.AllReduce(*meeting.stream, number, ReduceOp::kSum);
  meeting.stream->Synchronize();
  FailIf(failing);
  world.AllReduce(*meeting.stream, number, ReduceOp::kSum);
  meeting.stream->Synchronize();
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) {
  return longspan::RunAndReport([&] {
    const longspan::World world;
    const int failing = argc > 1 ? std::atoi(argv[1]) : -1;
    if (failing == world.size()) longspan::Fail(longspan::ExitCode::kConfig, "wrong on every rank");
    if (argc > 2) {
      const bool peer = std::string_view(argv[2]) == "PEER";
      longspan::MeetOnGpus(world.size(), peer ? longspan::Transport::kPeer : longspan::Transport::kNccl,
                           failing == world.rank());
    }
    longspan::FailIf(failing == world.rank());
    MPI_Barrier(MPI_COMM_WORLD);
    return 0;
  });
}
