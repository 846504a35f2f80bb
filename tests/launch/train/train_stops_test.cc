// How runs of `longspan train` stop before their end, in each of their phases, and go on: by signals, by time, by a
// file.
#include <csignal>
#include <cstdint>
#include <filesystem>

#include "tests/launch/train/background_run.h"
#include "tests/launch/train/tiny_run.h"

namespace longspan {
namespace {

using nlohmann::json;

class TrainStops : public TinyRun {
 protected:
  std::string Keys(int ranks, const std::string& keys) {
    return Arguments(
        fmt::format("data.validation_fraction=0 train.log_interval=100000 parallel.cp={} {}", ranks > 1 ? 2 : 1, keys));
  }
  int64_t LastStep() {
    int64_t last = 0;
    for (const json& line : Metrics()) {
      if (line["kind"] == "step") last = line["step"];
    }
    return last;
  }
  // The step after which the run says that it stopped, for this reason, and how to go on.
  int64_t Stopped(const std::string& said, const std::string& reason) {
    const size_t at = said.find("stopped by " + reason + " after step ");
    EXPECT_NE(at, std::string::npos) << said;
    if (at == std::string::npos) return -1;
    const int64_t step = std::stoll(said.substr(said.find(" after step ", at) + 12));
    EXPECT_NE(said.find("longspan", said.find('\n', at)), std::string::npos) << said;
    return step;
  }
  // The line behind "stopped by", which is the last that the program prints.
  static std::string Command(const std::string& said) {
    const size_t begin = said.find('\n', said.find("stopped by ")) + 1;
    return said.substr(begin, said.find('\n', begin) - begin);
  }
  void ExpectCommandGoesOn(const std::string& command, const std::string& more, const std::string& part) {
    const int status = std::system(fmt::format("{} {} > '{}' 2>&1", command, more, folder_ / "resumed").c_str());
    const std::string said = ReadFile(folder_ / "resumed");
    EXPECT_EQ(WEXITSTATUS(status), 0) << command << "\n" << said;
    EXPECT_NE(said.find(part), std::string::npos) << command << "\n" << said;
  }
};

TEST_F(TrainStops, BySignalsWhileTraining) {
  for (const int ranks : {1, 2, 4}) {
    for (const int signal : {SIGUSR1, SIGUSR2}) {
      std::filesystem::remove_all(folder_ / "runs");
      BackgroundRun run(ranks, Keys(ranks, "train.steps=1000000"), folder_ / "said");
      run.Await([&] { return LastStep() >= 3; });
      run.Signal(signal);
      EXPECT_EQ(run.Wait(), 75) << run.said();
      const int64_t step = Stopped(run.said(), signal == SIGUSR1 ? "SIGUSR1" : "SIGUSR2");
      EXPECT_EQ(step, LastStep());
      EXPECT_NE(run.said().find(fmt::format("saved step {} ", step)), std::string::npos) << run.said();
      EXPECT_EQ(Metrics().back()["kind"], "stop");
      EXPECT_EQ(Metrics().back()["step"], step);
      if (signal == SIGUSR2) {
        ExpectCommandGoesOn(Command(run.said()), fmt::format("train.steps={}", step + 2), "done: 2 steps");
        EXPECT_EQ(LastStep(), step + 2);
      }
    }
  }
}

// One rank got it, all stop.
TEST_F(TrainStops, BySignalOfOneRank) {
  BackgroundRun run(4, Keys(4, "train.steps=1000000"), folder_ / "said");
  run.Await([&] { return LastStep() >= 3; });
  const std::vector<pid_t> ranks = run.Children();
  ASSERT_EQ(ranks.size(), 4U);
  kill(ranks[2], SIGUSR1);
  EXPECT_EQ(run.Wait(), 75) << run.said();
  EXPECT_EQ(Stopped(run.said(), "SIGUSR1"), LastStep());
}

// Saved at once, without the report.
TEST_F(TrainStops, ByTermination) {
  for (const int signal : {SIGTERM, SIGINT}) {
    std::filesystem::remove_all(folder_ / "runs");
    BackgroundRun run(1, Keys(1, "train.steps=1000000"), folder_ / "said");
    run.Await([&] { return LastStep() >= 3; });
    run.Signal(signal);
    EXPECT_EQ(run.Wait(), 75) << run.said();
    const int64_t step = Stopped(run.said(), signal == SIGTERM ? "SIGTERM" : "SIGINT");
    EXPECT_NE(run.said().find(fmt::format("saved step {} ", step)), std::string::npos) << run.said();
    EXPECT_FALSE(std::filesystem::exists(folder_ / "runs/run/profile/report.txt"));
  }
  // The ranks have it from mpirun, which kills them soon.
  std::filesystem::remove_all(folder_ / "runs");
  BackgroundRun run(4, Keys(4, "train.steps=1000000"), folder_ / "said");
  run.Await([&] { return LastStep() >= 3; });
  run.Signal(SIGTERM);
  EXPECT_NE(run.Wait(), 0);
  EXPECT_EQ(RunProgram(folder_, 4, Keys(4, fmt::format("--resume train.steps={}", LastStep() + 1)), &said_), 0);
  EXPECT_NE(said_.find("done: "), std::string::npos) << said_;
}

TEST_F(TrainStops, WhileEvaluating) {
  WriteTokens("held_out", 64 * 30000, 7);
  for (const int ranks : {1, 4}) {
    const std::string keys =
        Keys(ranks, fmt::format("data.validation='{}' train.eval_interval=2 train.steps=4", folder_ / "held_out"));
    BackgroundRun run(ranks, keys + " --overwrite train.eval_sequences=30000", folder_ / "said");
    run.AwaitText("evaluating 30000 held-out sequences");
    run.Signal(SIGUSR1);
    EXPECT_EQ(run.Wait(), 75) << run.said();
    EXPECT_EQ(Stopped(run.said(), "SIGUSR1"), 2);
    // The evaluation is made up for, and only once.
    const std::string few = " train.eval_sequences=8";
    Expect(0, ranks, keys + " --resume" + few, {"eval 2/4 |", "eval 4/4 |", "done: 2 steps"});
    std::vector<int64_t> evaluations;
    for (const json& line : Metrics()) {
      if (line["kind"] == "eval") evaluations.push_back(line["step"]);
    }
    EXPECT_EQ(evaluations, (std::vector<int64_t>{2, 4}));
    Expect(0, ranks, keys + " --resume" + few, {"done already"});
  }
}

// Before the first step there is nothing to save; the same command begins again.
TEST_F(TrainStops, WhileLoadingAndRehearsing) {
  WriteTokens("many", 1 << 26, 7);
  const std::string many = fmt::format("--overwrite data.train='{}'", folder_ / "many");
  {
    BackgroundRun run(1, Keys(1, many), folder_ / "said");
    run.AwaitHandlers();
    run.Signal(SIGUSR1);
    EXPECT_EQ(run.Wait(), 75) << run.said();
    EXPECT_EQ(Stopped(run.said(), "SIGUSR1"), 0);
    EXPECT_EQ(run.said().find("rehearsal"), std::string::npos);
  }
  for (const int ranks : {1, 4}) {
    BackgroundRun run(ranks, Keys(ranks, "--overwrite"), folder_ / "said");
    run.AwaitText("\n  data  ");  // printed before the rehearsal, with the model
    run.Signal(SIGUSR1);
    EXPECT_EQ(run.Wait(), 75) << run.said();
    EXPECT_EQ(Stopped(run.said(), "SIGUSR1"), 0);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "runs/run/checkpoints"));
    ExpectCommandGoesOn(Command(run.said()), "", "done: 3 steps");
    std::filesystem::remove_all(folder_ / "runs");
  }
}

// The exchange of selected rows is measured again before step 11. A busy machine may bring a signal too late for that.
TEST_F(TrainStops, WhileTheExchangeIsMeasured) {
  WriteTokens("long", 1 << 16, 7);
  const std::string keys =
      Keys(2, fmt::format("--overwrite train.steps=1000000 parallel.selected_exchange=AUTO data.sequence_length=4096 "
                          "data.train='{}'",
                          folder_ / "long"));
  bool in_time = false;
  for (int tries = 0; tries < 10 && !in_time; ++tries) {
    BackgroundRun run(2, keys, folder_ / "said");
    run.Await([&] { return LastStep() >= 10; });
    run.Signal(SIGUSR1);
    EXPECT_EQ(run.Wait(), 75) << run.said();
    const std::string said = run.said(), measured = "  exchange   forward and backward of a step: ";
    const size_t first = said.find(measured);
    EXPECT_NE(first, std::string::npos) << said;
    in_time = Stopped(said, "SIGUSR1") == 10 && said.find(measured, first + 1) == std::string::npos;
    said_ = said;
  }
  EXPECT_TRUE(in_time) << said_;
  ExpectCommandGoesOn(Command(said_), "train.steps=11", "done: 1 step");
}

TEST_F(TrainStops, ByTime) {
  Expect(75, 2, Keys(2, "train.steps=1000000 train.max_minutes=0.03"), {"stopped by train.max_minutes = 0.03"});
  EXPECT_GT(LastStep(), 3);
  EXPECT_EQ(Stopped(said_, "train.max_minutes = 0.03"), LastStep());
}

TEST_F(TrainStops, ByAFile) {
  const std::string file = folder_ / "runs/run/stop";
  WriteFile(file, "");  // of before: asks nothing
  BackgroundRun run(2, Keys(2, "train.steps=1000000"), folder_ / "said");
  run.Await([&] { return LastStep() >= 3; });
  WriteFile(file, "");
  EXPECT_EQ(run.Wait(), 75) << run.said();
  const int64_t step = Stopped(run.said(), file);
  EXPECT_EQ(step, LastStep());
  ExpectCommandGoesOn(Command(run.said()), fmt::format("train.steps={}", step + 1), "done: 1 step ");
}

// Stopped and resumed again and again, a run has the bits of the unbroken one.
TEST_F(TrainStops, WithTheBitsOfTheUnbrokenRun) {
  for (const int ranks : {1, 2}) {
    const std::string keys = Keys(ranks, "train.steps=400 ");
    std::filesystem::remove_all(folder_ / "runs");
    Expect(0, ranks, keys, {"done: 400 steps"});
    const std::string expected = Parameters();
    const auto losses = [&] {
      std::vector<double> found;
      for (const json& line : Metrics()) {
        if (line["kind"] == "step") found.push_back(line["loss"]);
      }
      return found;
    };
    const std::vector<double> expected_losses = losses();
    std::filesystem::remove_all(folder_ / "runs");
    int stops = 0;
    int64_t before = 0;
    for (std::string how;; how = "--resume") {
      BackgroundRun run(ranks, keys + how, folder_ / "said");
      run.Await([&] { return LastStep() >= std::min<int64_t>(before + 60, 400); });
      run.Signal(SIGUSR1);
      const int code = run.Wait();
      if (code == 0) {
        said_ = run.said();
        EXPECT_EQ(Parameters(), expected);
        break;
      }
      ASSERT_EQ(code, 75) << run.said();
      before = Stopped(run.said(), "SIGUSR1");
      ASSERT_LT(++stops, 10);
      if (before == 400) {
        Expect(0, ranks, keys + "--resume", {"done already"});
        break;
      }
    }
    EXPECT_GE(stops, 1);
    EXPECT_EQ(losses(), expected_losses);
  }
}

}  // namespace
}  // namespace longspan
