// A job of several ranks that hangs, or seems to: stalled_job CASE. Run by stalled_job_test.sh.
#include <mpi.h>

#include <array>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "launch/job/job.h"
#include "launch/job/world.h"
#include "parallel/comm/recorder.h"
#include "runtime/error.h"
#include "runtime/place.h"
#include "runtime/planted_fault.h"

namespace longspan {
namespace {

constexpr double kTimeout = 2;

class StalledJob {
 public:
  void Run(const std::string& what) {
    if (what == "connect") Connect();
    FlightRecorder::Get().SetStep(1);
    PlantedFault::Get().BeginStep(world_.rank(), 1, 0);
    Reduce(world_, 1);
    const auto stage = InStage("test");
    const int rank = world_.rank();
    if (rank == 1) fmt::print(stderr, "the fault\n");
    if (what == "extra" && rank == 1) world_.Barrier();
    if (what == "size") Reduce(world_, rank == 1 ? 8 : 4);
    if (what == "type" && rank == 1) Reduce<double>(world_, 1);
    if (what == "circle" && rank == 1) {
      world_.Barrier();
      Reduce(cp_, 1);
    } else if (what == "circle") {
      Reduce(cp_, 1);
      world_.Barrier();
    }
    if (what == "spin" && rank == 2) Spin();
    if (what == "driver") Sleep(60);  // as one that waits for its GPU
    if (what == "evaluate") {
      const InPhase phase(HostPhase::kEvaluate);
      if (rank == 1) Sleep(1.5 * kTimeout);
      Reduce(world_, 1);
    }
    if (what == "save") {
      const InPhase phase(HostPhase::kSave);
      if (rank == 1) Sleep(60);
      Reduce(world_, 1);
    }
    // Meanwhile all processes are stopped for a while.
    for (int i = 0; what == "suspend" && i < 6; ++i) {
      if (rank == 1) Sleep(kTimeout / 4);
      Reduce(world_, 1);
    }
    Reduce(world_, 1);
  }

 private:
  // As NCCL connects GPUs (parallel/comm/nccl_links.cc): ranks poll whether all have come.
  void Connect() {
    const InPhase phase(HostPhase::kConnect);
    const auto stage = InStage("connect");
    const int rank = world_.rank(), size = world_.size();
    if (rank == 1) fmt::print(stderr, "the fault\n");
    PlantedFault::Get().Strike(CurrentPlace());
    FlightRecorder& recorder = FlightRecorder::Get();
    const int group = recorder.AddGroup(7, size, rank, /*device=*/true);
    const Transferring making(recorder.Enqueue(group, {"comm.connect_gpus", 0, 0, 0, DType::kU8}));
    MPI_Request all = MPI_REQUEST_NULL;
    MPI_Ibarrier(MPI_COMM_WORLD, &all);
    for (int come = 0; come == 0; MPI_Test(&all, &come, MPI_STATUS_IGNORE)) Sleep(0.001);
  }
  static void Sleep(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }
  // In code of its own, that knows no signals.
  [[gnu::noinline]] static void Spin() {
    std::atomic<int64_t> turns = 0;
    for (;;) turns.fetch_add(1);
  }
  template <typename T = float>
  void Reduce(Communicator& group, int64_t count) {
    std::array<T, 8> x{};
    group.AllReduce(*stream_, HostView(x.data(), {count}), ReduceOp::kSum);
  }

  Job job_{DeviceKind::kCpu, {.cp = 2}, {.timeout = kTimeout, .save_timeout = kTimeout / 2}};
  Communicator& world_ = job_.mesh().host_world();
  Communicator& cp_ = job_.mesh().cp();
  const std::unique_ptr<Stream> stream_ = MakeCpuDevice()->MakeStream("test");
};

}  // namespace
}  // namespace longspan

int main(int, char** argv) {
  return longspan::RunAndReport([&] {
    const longspan::World world;
    longspan::StalledJob().Run(argv[1]);
    return 0;
  });
}
