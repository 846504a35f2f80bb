// Faults planted in one of four ranks, and that the report names the rank, its stage, the class and since when. All
// ranks share few cores with whatever else runs: shares are compared, not times.
#include <csignal>
#include <fstream>

#include "tests/launch/report/profiled_run.h"

namespace longspan {
namespace {

using nlohmann::json;

class PlantedFaults : public ProfiledRun {
 protected:
  // What the report blames most, after a run with this fault.
  json Blamed(const std::string& fault, int steps) {
    setenv("LONGSPAN_PLANTED_FAULT", fault.c_str(), 1);
    EXPECT_EQ(RunProgram(folder_, 4, Arguments(fmt::format("train.steps={}", steps)), &said_), 0) << said_;
    unsetenv("LONGSPAN_PLANTED_FAULT");
    return First(Report());
  }
  // Nobody else is blamed for as much.
  json First(const json& report) {
    text_ = report.dump(1);
    const json stragglers = report.value("stragglers", json::array());
    if (stragglers.empty()) return {{"rank", -1}, {"class", "none"}, {"stage", ""}, {"pass", ""}, {"first_step", -1}};
    if (stragglers.size() > 1) {
      EXPECT_LT(stragglers[1]["saving_share"].get<double>(), stragglers[0]["saving_share"].get<double>());
    }
    EXPECT_GT(stragglers[0]["saving_share"], 0.05);
    return stragglers[0];
  }

  std::string text_;  // of the report, for failures
};

TEST_F(PlantedFaults, ARankThatSleepsInAForwardStage) {
  const json blamed = Blamed("1:window:forward:sleep:0.3:1", 30);
  EXPECT_EQ(blamed["rank"], 1) << text_;
  EXPECT_EQ(blamed["stage"], "window") << text_;
  EXPECT_EQ(blamed["pass"], "forward") << text_;
  EXPECT_EQ(blamed["class"], "host") << text_;  // it does not compute meanwhile
}

// The wall time of a step is the same on all ranks. Its report says so while the run goes on.
TEST_F(PlantedFaults, ARankThatComputesLongerInTheBackwardSinceAStep) {
  setenv("LONGSPAN_PLANTED_FAULT", "2:feed_forward:backward:spin:0.6:30", 1);
  BackgroundRun run(4, Arguments("train.steps=100000"), folder_ / "said");
  unsetenv("LONGSPAN_PLANTED_FAULT");
  const auto taken = [&](int step) {
    return ReadFile(folder_ / "runs/run/metrics.jsonl").find(fmt::format("\"step\":{},", step)) != std::string::npos;
  };
  run.Await([&] { return taken(30); });
  const auto planted = std::chrono::steady_clock::now();
  json blamed;
  run.Await([&] {
    if (!taken(40)) return false;  // each report takes a processor from the run
    const json report = Report();
    if (report.is_discarded() || report["stragglers"].empty()) return false;
    blamed = report["stragglers"][0];
    text_ = report.dump(1);
    return blamed["rank"] == 2 && blamed["stage"] == "feed_forward" && blamed["first_step"].get<int>() > 20;
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - planted;
  fmt::print("named {:.1f} s after the step at which it began, in a report of {} steps since then\n", seconds.count(),
             json::parse(text_)["steps"]["last"].get<int>() - 29);
  EXPECT_EQ(blamed["pass"], "backward") << text_;
  EXPECT_EQ(blamed["class"], "compute") << text_;
  EXPECT_NEAR(blamed["first_step"].get<int>(), 30, 3) << text_;
  EXPECT_EQ(blamed["to_end"], true) << text_;
  run.Signal(SIGTERM);
  run.Wait();
}

TEST_F(PlantedFaults, ALoaderThatIsSlow) {
  const json blamed = Blamed("3:load:none:sleep:2:1", 30);
  EXPECT_EQ(blamed["rank"], 3) << text_;
  EXPECT_EQ(blamed["class"], "data") << text_;
}

// The process of a rank, of a run under mpirun.
pid_t RankProcess(const BackgroundRun& run, int rank) {
  for (const pid_t pid : run.Children()) {
    const std::string environment = ReadFile(fmt::format("/proc/{}/environ", pid));
    if (environment.find(std::string("OMPI_COMM_WORLD_RANK=") + std::to_string(rank) + '\0') != std::string::npos) {
      return pid;
    }
  }
  return -1;
}

TEST_F(PlantedFaults, ARankThatIsStoppedHalfTheTime) {
  BackgroundRun run(4, Arguments("train.steps=100000"), folder_ / "said");
  run.AwaitText("rehearsal of the step");
  const pid_t pid = RankProcess(run, 1);
  ASSERT_GT(pid, 0) << run.said();
  // While the run goes on, its report comes to name the rank.
  json blamed;
  for (int tries = 0; tries < 12; ++tries) {
    for (int i = 0; i < 100; ++i) {
      for (const int signal : {SIGSTOP, SIGCONT}) {
        kill(pid, signal);
        std::this_thread::sleep_for(std::chrono::milliseconds(25));
      }
    }
    const json report = Report();
    if (report.is_discarded() || report["steps"]["count"] < 20) continue;
    EXPECT_EQ(report["running"], true);
    blamed = First(report);
    if (blamed["rank"] == 1 && blamed["class"] == "host") break;
  }
  EXPECT_EQ(blamed["rank"], 1) << text_;
  EXPECT_EQ(blamed["class"], "host") << text_;
  run.Signal(SIGTERM);
  run.Wait();
}

}  // namespace
}  // namespace longspan
