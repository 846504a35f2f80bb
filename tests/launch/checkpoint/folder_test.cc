// The names of a run's checkpoints: which are complete, which stay, what is left of those that are not.
#include "launch/checkpoint/folder.h"

#include "tests/support/files.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

class CheckpointFolderTest : public testing::Test {
 protected:
  std::vector<int64_t> Steps() {
    std::vector<int64_t> steps;
    for (const auto& found : checkpoints_.List()) steps.push_back(found.step);
    return steps;
  }
  void Write(int64_t step) {
    checkpoints_.Begin(step);
    Manifest manifest;
    manifest.state.step = step;
    checkpoints_.Commit(manifest);
  }
  TempFolder folder_;
  const std::string path_ = folder_ / "run/checkpoints";
  CheckpointFolder checkpoints_{path_};
};

TEST_F(CheckpointFolderTest, CompleteOnesAreListedNewestFirst) {
  EXPECT_EQ(Steps(), std::vector<int64_t>{});
  fs::create_directories(folder_ / "run");
  for (const int64_t step : {9, 100, 20}) Write(step);
  for (const char* name : {"/step-00000300.partial", "/step-00000400.broken", "/step-x", "/step-", "/notes"}) {
    fs::create_directory(path_ + name);
  }
  EXPECT_EQ(Steps(), (std::vector<int64_t>{100, 20, 9}));
  EXPECT_EQ(ReadFile(path_ + "/latest"), "step-00000020\n");
  EXPECT_TRUE(fs::exists(path_ + "/step-00000009/manifest.json"));
}

TEST_F(CheckpointFolderTest, WhatWasNotCompletedGoes) {
  checkpoints_.Begin(7);
  WriteFile(checkpoints_.PartialOf(7) + "/shard", "bytes");
  EXPECT_EQ(Steps(), std::vector<int64_t>{});
  Write(8);
  EXPECT_FALSE(fs::exists(checkpoints_.PartialOf(7)));
  checkpoints_.Begin(9);
  checkpoints_.Abandon(9);
  EXPECT_FALSE(fs::exists(checkpoints_.PartialOf(9)));
  EXPECT_EQ(Steps(), std::vector<int64_t>{8});
}

TEST_F(CheckpointFolderTest, OneOfTheNameIsReplaced) {
  Write(5);
  WriteFile(checkpoints_.PathOf(5) + "/old", "");
  Write(5);
  EXPECT_FALSE(fs::exists(checkpoints_.PathOf(5) + "/old"));
  EXPECT_EQ(Steps(), std::vector<int64_t>{5});
}

TEST_F(CheckpointFolderTest, TheNewestAndEveryNthStay) {
  for (int64_t step = 2; step <= 16; step += 2) Write(step);
  checkpoints_.Retain(3, 4);
  EXPECT_EQ(Steps(), (std::vector<int64_t>{16, 14, 12, 8, 4}));
  checkpoints_.Retain(1, 0);
  EXPECT_EQ(Steps(), std::vector<int64_t>{16});
  checkpoints_.SetAside(checkpoints_.PathOf(16));
  EXPECT_EQ(Steps(), std::vector<int64_t>{});
  EXPECT_TRUE(fs::exists(path_ + "/step-00000016.broken/manifest.json"));
}

TEST_F(CheckpointFolderTest, ErrorsNameThePlace) {
  WriteFile(folder_ / "run", "a file");
  ExpectError(ExitCode::kIo, {path_}, [&] { checkpoints_.Begin(1); });
  ExpectError(ExitCode::kIo, {path_}, [&] { checkpoints_.List(); });
}

}  // namespace
}  // namespace longspan
