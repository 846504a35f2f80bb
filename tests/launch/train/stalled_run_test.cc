// Faults planted in one of four ranks of a training run: the others end the job and name the rank, its place and what
// they waited for. Prints the seconds from the fault to the verdict, and until all processes are gone.
#include <algorithm>
#include <cstdio>

#include "runtime/trace.h"
#include "tests/launch/train/background_run.h"
#include "tests/launch/train/tiny_run.h"

namespace longspan {
namespace {

class StalledRun : public TinyRun {
 protected:
  // A run with this fault, that ends with `code` once it has said `verdict`; returns what it said.
  std::string Run(const std::string& fault, int code, const std::string& verdict) {
    std::filesystem::remove_all(folder_ / "runs");
    setenv("LONGSPAN_PLANTED_FAULT", fault.c_str(), 1);
    BackgroundRun run(4,
                      Arguments("model.layers=4 parallel.cp=2 train.steps=1000000 train.log_interval=100000 "
                                "data.validation_fraction=0 checkpoint.minutes=0 comm.timeout=2"),
                      folder_ / "said");
    unsetenv("LONGSPAN_PLANTED_FAULT");
    run.AwaitText("planted fault: ");
    const std::vector<pid_t> ranks = run.Children();
    const double planted = WallSeconds();
    run.AwaitText(verdict);
    const double said = WallSeconds();
    const int ended = run.Wait();
    Await([&] { return std::none_of(ranks.begin(), ranks.end(), Runs); });
    std::printf("%s: verdict after %.1f s, all processes gone after %.1f s, exit code %d\n", fault.c_str(),
                said - planted, WallSeconds() - planted, ended);
    EXPECT_EQ(ended, code) << run.said();
    return run.said();
  }
  // One that ended may stay until somebody asks for it.
  static bool Runs(pid_t pid) {
    const std::string stat = ReadFile(fmt::format("/proc/{}/stat", pid));
    const size_t name = stat.rfind(')');
    return name != std::string::npos && stat.compare(name, 3, ") Z") != 0;
  }
  static void Await(const std::function<bool()>& there) {
    for (int i = 0; i < 6000 && !there(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_TRUE(there());
  }
  static void ExpectParts(const std::string& text, std::initializer_list<std::string> parts) {
    for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks: " << part;
  }
  // Of the run's folder.
  std::string StallFile(const std::string& name) {
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "runs/run")) {
      if (entry.path().filename().string().starts_with("stall-")) return ReadFile(entry.path() / name);
    }
    return "";
  }
};

TEST_F(StalledRun, ARankHangsInTheThirdLayersHalo) {
  const std::string said = Run("1:halo:forward:hang:2:5", 76, "communication stalled: ");
  ExpectParts(said, {"communication stalled: send_receive of halo, layer 2 forward, call ", "of ranks 0, 1 has",
                     "(comm.timeout = 2)", "not arrived: rank 1\n", "  rank 1 on ", ": in step 5 for ",
                     "main thread at halo, layer 2 forward\n", "      HaloExchange::Forward\n"});
  const std::string verdict = StallFile("verdict.txt");
  EXPECT_NE(said.find(verdict.substr(0, verdict.size() - 1)), std::string::npos) << verdict;
  for (int rank = 0; rank < 4; ++rank) {
    ExpectParts(StallFile(fmt::format("rank0000{}.txt", rank)),
                {fmt::format("rank {}/4 on ", rank), "in step 5", "comm.send_receive", "main thread"});
  }
}

// Before anything is done.
TEST_F(StalledRun, ARankHasAnotherConfiguration) {
  const double begin = WallSeconds();
  BackgroundRun run(3,
                    fmt::format("{} : -np 1 '{}' {}", Arguments("parallel.cp=2"), LONGSPAN_PROGRAM,
                                Arguments("parallel.cp=2 model.hidden=32")),
                    folder_ / "said");
  const int ended = run.Wait();
  std::printf("another configuration: exit code %d %.1f s after the start\n", ended, WallSeconds() - begin);
  EXPECT_EQ(ended, 78);
  ExpectParts(run.said(), {"error: [rank 0/4 ", "model.hidden: 16 ", "on rank 0, 32 ", "on rank 3"});
}

// The lowest of the others speaks.
TEST_F(StalledRun, ARankIsStopped) {
  ExpectParts(Run("0:halo:forward:stop:2:5", 76, "communication stalled: "),
              {"error: [rank 1/4 ", "of ranks 0, 1 has", "not arrived: rank 0\n",
               "its process is stopped by a signal; it was in step 5",
               "its last transfer: send_receive of halo, layer 2 forward", "no native stack"});
}

TEST_F(StalledRun, ALoaderHangs) {
  ExpectParts(Run("3:load:none:hang:0:5", 76, "communication stalled: "),
              {"all_gather of agreement", "of ranks 0 to 3 has", "not arrived: rank 3\n", "main thread at data\n",
               "StepLoader::Step\n", " at load\n"});
}

// The launcher notices, too: its exit code is the one that counts, and on a busy machine it may end the others before
// they have spoken.
TEST_F(StalledRun, ARankExits) {
  const std::string said = Run("1:halo:forward:exit:2:5", 7, "thus causing");
  if (said.find("error: ") == std::string::npos) return;
  ExpectParts(said, {"rank 1 ended while others need it", "its process is gone; it was in step 5",
                     "send_receive of halo, layer 2 forward"});
}

TEST_F(StalledRun, ARankIsKilled) {
  const std::string said = Run("0:halo:forward:kill:2:5", 137, "noticed that process rank 0");
  if (said.find("error: ") == std::string::npos) return;
  ExpectParts(said, {"error: [rank 1/4 ", "rank 0 ended while others need it", "its process is gone; it was in step 5",
                     "send_receive of halo, layer 2 forward"});
}

}  // namespace
}  // namespace longspan
