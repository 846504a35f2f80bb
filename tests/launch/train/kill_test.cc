// Kill -9 at random moments of runs that save every step, of all processes or of one rank, again and again: the newest
// complete checkpoint always loads, and what is resumed has the unbroken run's bits.
#include <random>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/reader.h"
#include "tests/launch/train/interrupted_run.h"

namespace longspan {
namespace {

constexpr int kMoments = 20;

TEST_F(InterruptedRun, KilledAtRandomMoments) {
  const std::string keys =
      "data.validation_fraction=0 train.steps=700 parallel.cp=2 optimizer.schedule=COSINE train.log_interval=100 ";
  Expect(0, 2, Arguments(keys + "name=whole checkpoint.minutes=0"), {"done: 700 steps"});
  const std::string whole = Parameters();

  const auto seed = std::random_device()();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  const CheckpointFolder checkpoints(folder_ / "runs/run/checkpoints");
  int64_t newest = 0;
  for (int moment = 0; moment < kMoments; ++moment) {
    const int64_t begun = Lines("run", "start") + Lines("run", "resume");
    const auto delay = std::chrono::microseconds(random() % 60'000);
    const char* const background = moment % 4 < 2 ? "true" : "false";
    Kill(2, Arguments(keys + "checkpoint.interval=1 --resume checkpoint.background=" + background),
         /*all=*/moment % 2 == 0, [&] {
           if (Lines("run", "start") + Lines("run", "resume") == begun) return false;
           std::this_thread::sleep_for(delay);
           return true;
         });
    for (const auto& found : checkpoints.List()) {
      const CheckpointReader reader(found.path);
      for (const auto& [name, file] : reader.manifest().files) reader.CheckFile(name);
    }
    const auto found = checkpoints.List();
    if (found.empty()) continue;
    EXPECT_GE(found[0].step, newest);
    newest = found[0].step;
  }
  EXPECT_GT(newest, 0);
  ASSERT_LT(newest, 700);
  Expect(0, 2, Arguments(keys + "checkpoint.minutes=0 --resume"), {fmt::format("after step {}", newest), "done: "});
  EXPECT_EQ(Parameters(), whole);
  EXPECT_EQ(Steps("run"), Steps("whole"));
}

}  // namespace
}  // namespace longspan
