// Faults planted in one of four ranks, and that the report names the rank, its stage, the class and since when, while
// the run goes on. All ranks share few cores with whatever else runs, which makes ranks slow, too: shares are compared,
// not times, and reports are read until enough steps tell the one from the other. On which step exactly is
// `summary_test`'s.
#include <csignal>
#include <filesystem>

#include "tests/launch/report/profiled_run.h"

namespace longspan {
namespace {

using nlohmann::json;

class PlantedFaults : public ProfiledRun {
 protected:
  // What the report blames most; null where it blames nobody.
  json MostBlamed() {
    const json report = Report();
    text_ = report.dump(1);
    if (report.is_discarded()) return {};
    EXPECT_EQ(report["running"], true);
    last_step_ = report["steps"]["last"];
    starved_ = report["breakdown"]["cpu"] < 0.5 * report["breakdown"]["work"].get<double>();
    const json& stragglers = report["stragglers"];
    if (stragglers.size() > 1) {
      EXPECT_GE(stragglers[0]["saving_share"].get<double>(), stragglers[1]["saving_share"].get<double>()) << text_;
    }
    return stragglers.empty() ? json() : stragglers[0];
  }

  // A run with this fault, until its report blames what is `expected` most; since a step: within a few of it. Another
  // where it does not: other programs may slow the same rank down before.
  void ExpectBlamed(const std::string& fault, const json& expected, int since = -1) {
    for (int run = 0; run < 3 && !HasFailure(); ++run) {
      if (IsBlamed(fault, expected, since)) return;
    }
    ADD_FAILURE() << text_;
  }

 private:
  bool IsBlamed(const std::string& fault, const json& expected, int since) {
    std::filesystem::remove_all(folder_ / "runs");
    setenv("LONGSPAN_PLANTED_FAULT", fault.c_str(), 1);
    BackgroundRun run(4, Arguments("train.steps=100000"), folder_ / "said");
    unsetenv("LONGSPAN_PLANTED_FAULT");
    const auto taken = [&](int step) {
      return ReadFile(folder_ / "runs/run/metrics.jsonl").find(fmt::format("\"step\":{},", step)) != std::string::npos;
    };
    run.Await([&] { return taken(std::max(1, since)); });
    const auto begin = std::chrono::steady_clock::now();
    int step = since + 10;
    const auto named = [&] {
      if (!taken(step)) return false;
      step += 10;  // each report takes a processor from the run
      const json blamed = MostBlamed();
      if (blamed.is_null()) return false;
      json as_expected = blamed;
      as_expected.update(expected);
      if (starved_) as_expected["class"] = blamed["class"];  // who computes does not run either
      return blamed == as_expected && blamed["saving_share"] > 0.05 &&
             (since < 0 || std::abs(blamed["first_step"].get<int>() - since) <= 8);
    };
    const bool is_named = BackgroundRun::ComesTrue(named, std::chrono::seconds(40));
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    fmt::print("{} after {:.1f} s and {} steps\n", is_named ? "named" : "not named", seconds.count(),
               last_step_ - std::max(1, since) + 1);
    run.Signal(SIGTERM);
    run.Wait();
    return is_named;
  }

 protected:
  std::string text_;  // of the report, for failures
  int last_step_ = 0;
  bool starved_ = false;  // of processors, by other programs
};

// It does not compute meanwhile.
TEST_F(PlantedFaults, ARankThatSleepsInAForwardStage) {
  ExpectBlamed("1:window:forward:sleep:0.3:1",
               {{"rank", 1}, {"stage", "window"}, {"pass", "forward"}, {"class", "host"}});
}

// The wall time of a step is the same on all ranks.
TEST_F(PlantedFaults, ARankThatComputesLongerInTheBackwardSinceAStep) {
  ExpectBlamed("2:feed_forward:backward:spin:0.6:30",
               {{"rank", 2}, {"stage", "feed_forward"}, {"pass", "backward"}, {"class", "compute"}, {"to_end", true}},
               30);
}

TEST_F(PlantedFaults, ALoaderThatIsSlow) { ExpectBlamed("3:load:none:sleep:2:1", {{"rank", 3}, {"class", "data"}}); }

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
  json blamed;
  for (int tries = 0; tries < 12 && (blamed.is_null() || blamed["rank"] != 1 || blamed["class"] != "host"); ++tries) {
    for (int i = 0; i < 100; ++i) {
      for (const int signal : {SIGSTOP, SIGCONT}) {
        kill(pid, signal);
        std::this_thread::sleep_for(std::chrono::milliseconds(25));
      }
    }
    blamed = MostBlamed();
  }
  ASSERT_FALSE(blamed.is_null()) << text_;
  EXPECT_EQ(blamed["rank"], 1) << text_;
  EXPECT_EQ(blamed["class"], "host") << text_;
  run.Signal(SIGTERM);
  run.Wait();
}

}  // namespace
}  // namespace longspan
