// Kill -9 at random moments of runs that save every step, of all processes or of one rank, again and again: the newest
// complete checkpoint, on the disk or in memory, always loads, and what is resumed has the unbroken run's bits.
#include <chrono>
#include <random>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/reader.h"
#include "tests/launch/train/interrupted_run.h"

namespace longspan {
namespace {

class Killed : public InterruptedRun {
 protected:
  static int64_t Newest(const std::string& place) {
    const auto found = CheckpointFolder(place).List();
    return found.empty() ? 0 : found[0].step;
  }
  // `often` saves every step to the folder that `place` names, which is looked at once there is a run.
  void Run(int moments, const std::string& often, const std::function<std::string()>& place) {
    const std::string keys =
        "data.validation_fraction=0 train.steps=700 parallel.cp=2 optimizer.schedule=COSINE train.log_interval=100 ";
    Expect(0, 2, Arguments(keys + "name=whole checkpoint.minutes=0"), {"done: 700 steps"});
    const std::string whole = Parameters();

    const auto seed = std::random_device()();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937 random(seed);
    int64_t newest = 0;
    for (int moment = 0; moment < moments; ++moment) {
      const int64_t begun = Lines("run", "start") + Lines("run", "resume");
      const auto delay = std::chrono::microseconds(random() % 60'000);
      const char* const background = moment % 4 < 2 ? "true" : "false";
      Kill(2, Arguments(keys + often + " --resume checkpoint.background=" + background),
           /*all=*/moment % 2 == 0, [&] {
             if (Lines("run", "start") + Lines("run", "resume") == begun) return false;
             // On a busy machine nothing might ever be saved within so short a time.
             if (moment % 3 == 0 && Newest(place()) <= newest) return false;
             std::this_thread::sleep_for(delay);
             return true;
           });
      const auto found = CheckpointFolder(place()).List();
      for (const auto& each : found) {
        const CheckpointReader reader(each.path);
        for (const auto& [name, file] : reader.manifest().files) reader.CheckFile(name);
      }
      if (found.empty()) continue;
      EXPECT_GE(found[0].step, newest);
      newest = found[0].step;
    }
    EXPECT_GT(newest, 0);
    ASSERT_LT(newest, 700);
    Expect(0, 2, Arguments(keys + "checkpoint.minutes=0 --resume"),
           {place() + fmt::format("/step-{:08}", newest), fmt::format("after step {}", newest), "done: "});
    EXPECT_EQ(Parameters(), whole);
    EXPECT_EQ(Steps("run"), Steps("whole"));
  }
};

TEST_F(Killed, AtRandomMoments) {
  Run(20, "checkpoint.interval=1", [&] { return folder_ / "runs/run/checkpoints"; });
}

TEST_F(Killed, AtRandomMomentsFromMemory) {
  std::string place;
  Run(10, "checkpoint.memory_interval=1 checkpoint.minutes=0", [&] {
    const std::string id = ReadFile(folder_ / "runs/run/id");
    return place = "/dev/shm/longspan-" + id.substr(0, id.find('\n'));
  });
  EXPECT_FALSE(std::filesystem::exists(place));  // it ended well
}

}  // namespace
}  // namespace longspan
