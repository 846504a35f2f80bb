// Plans that do not fit are refused before anything is taken; the ranks of a node share its memory.
#include "launch/train/memory_fit.h"

#include <mpi.h>

#include <filesystem>

#include "runtime/memory.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

constexpr const char* kFiles = "/dev/shm/longspan-memory_fit_test";

TEST(MemoryFit, TheRanksOfANodeShareIt) {
  int ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const Job job(DeviceKind::kCpu, {.cp = ranks});
  const RunConfig config;
  const int64_t available = AvailableHostBytes();
  ASSERT_GT(available, 0);
  RequireFit(job, config, {int64_t{1} << 20, 0}, kFiles);
  for (const PlannedMemory& half : {PlannedMemory{available / 2, 0}, {available / 4, available / 4}}) {
    if (ranks == 1) {
      RequireFit(job, config, half, kFiles);
    } else {
      ExpectError(ExitCode::kRankFailed,
                  {"out of host memory", fmt::format("{} ranks", ranks), "available", "shorten data.sequence_length"},
                  [&] { RequireFit(job, config, half, kFiles); });
    }
  }
  ExpectError(ExitCode::kRankFailed, {"train.recompute to SELECTIVE or FULL"}, [&] {
    RequireFit(job, config, {2 * available, 0}, kFiles);
  });
}

// Those that are there already will be replaced.
TEST(MemoryFit, FilesInMemoryHaveAPlace) {
  int ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const Job job(DeviceKind::kCpu, {.cp = ranks});
  RunConfig config;
  config.checkpoint.memory_interval = 7;
  const TempFolder folder;
  const auto place = static_cast<int64_t>(std::filesystem::space(folder / "").available);
  RequireFit(job, config, {0, 0, 1 << 20}, folder / "files");
  ExpectError(ExitCode::kConfig, {"checkpoint.memory_interval = 7", "enlarge it", "to 0"}, [&] {
    RequireFit(job, config, {0, 0, place / ranks + (int64_t{1} << 30)}, folder / "files");
  });
  ExpectError(ExitCode::kConfig, {"/no/such/place", "room for 0"}, [&] {
    RequireFit(job, config, {0, 0, 1}, "/no/such/place/files");
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
