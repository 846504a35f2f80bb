// Plans that do not fit are refused before anything is taken; the ranks of a node share its memory.
#include "launch/train/memory_fit.h"

#include <mpi.h>

#include "runtime/memory.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

TEST(MemoryFit, TheRanksOfANodeShareIt) {
  int ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const Job job(DeviceKind::kCpu, {.cp = ranks});
  const RunConfig config;
  const int64_t available = AvailableHostBytes();
  ASSERT_GT(available, 0);
  RequireFit(job, config, {int64_t{1} << 20, 0});
  for (const PlannedMemory& half : {PlannedMemory{available / 2, 0}, {available / 4, available / 4}}) {
    if (ranks == 1) {
      RequireFit(job, config, half);
    } else {
      ExpectError(ExitCode::kRankFailed,
                  {"out of host memory", fmt::format("{} ranks", ranks), "available", "shorten data.sequence_length"},
                  [&] { RequireFit(job, config, half); });
    }
  }
  ExpectError(ExitCode::kRankFailed, {"train.recompute to SELECTIVE or FULL"}, [&] {
    RequireFit(job, config, {2 * available, 0});
  });
}

TEST(MemoryFit, NamesWhatIsNotSmallYet) {
  RunConfig config;
  const auto on = [&](DeviceKind device) { return SmallerMemory(config, device); };
  EXPECT_NE(on(DeviceKind::kCpu).find("more nodes, or set train.recompute to SELECTIVE or FULL"), std::string::npos);
  config.train.keep.recompute = Recompute::kSelective;
  EXPECT_NE(on(DeviceKind::kGpu).find("more GPUs, or set train.offload to true, or set train.recompute to FULL"),
            std::string::npos);
  config.train.keep = {.recompute = Recompute::kFull, .offload = true};
  EXPECT_EQ(on(DeviceKind::kGpu), "shorten data.sequence_length, or raise parallel.cp with more GPUs");
}

}  // namespace
}  // namespace longspan
