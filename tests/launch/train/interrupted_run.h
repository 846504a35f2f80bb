// Runs that are killed, and the unbroken run that they must equal.
#pragma once

#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tests/launch/train/tiny_run.h"

namespace longspan {

class InterruptedRun : public TinyRun {
 protected:
  // Starts the run in the background, waits until `when` holds, and kills all its processes, or one rank.
  void Kill(int ranks, const std::string& arguments, bool all, const std::function<bool()>& when) {
    const std::string launcher = ranks > 1 ? fmt::format("'{}' -np {} ", LONGSPAN_MPIEXEC, ranks) : "";
    std::jthread run([&] {
      const std::string command =
          fmt::format("{}'{}' {} > '{}' 2>&1", launcher, LONGSPAN_PROGRAM, arguments, folder_ / "killed");
      [[maybe_unused]] const int status = std::system(command.c_str());
    });
    const bool came = Wait(when);
    EXPECT_TRUE(came) << ReadFile(folder_ / "killed");
    std::vector<pid_t> own = Processes();
    if (!all && !own.empty()) own = {own.back()};
    for (const pid_t pid : own) kill(pid, SIGKILL);
    if (!came || all) {
      for (const pid_t pid : Processes()) kill(pid, SIGKILL);
    }
    run.join();
    Wait([&] { return Processes().empty(); });
  }
  static bool Wait(const std::function<bool()>& when) {
    for (int i = 0; i < 60'000; ++i) {
      if (when()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  // Ranks of runs in this folder.
  std::vector<pid_t> Processes() {
    std::vector<pid_t> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const std::string name = entry.path().filename().string();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const std::string command = ReadFile(entry.path().string() + "/cmdline");
      if (command.starts_with(LONGSPAN_PROGRAM) && command.find(folder_ / "") != std::string::npos) {
        found.push_back(std::stoi(name));
      }
    }
    return found;
  }
  int64_t LastStep() {
    int64_t last = 0;
    for (const auto& line : Metrics()) {
      if (line["kind"] == "step") last = line["step"];
    }
    return last;
  }
  // By step, of the lines that are not lost: each stands once.
  std::map<int64_t, std::string> Steps(const std::string& name) {
    std::map<int64_t, std::string> steps;
    for (const auto& line : Metrics(name)) {
      if (line["kind"] != "step" && line["kind"] != "eval") continue;
      const std::string kept = line["kind"] == "step"
                                   ? fmt::format("{} {} {} {}", line["loss"].dump(), line["grad_norm"].dump(),
                                                 line["learning_rate"].dump(), line["selection"].dump())
                                   : "";
      if (!kept.empty()) {
        EXPECT_TRUE(steps.emplace(line["step"], kept).second) << "step " << line["step"] << " stands twice";
      }
    }
    return steps;
  }
  int64_t Lines(const std::string& name, const std::string& kind) {
    int64_t count = 0;
    for (const auto& line : Metrics(name)) count += line["kind"] == kind ? 1 : 0;
    return count;
  }
};

}  // namespace longspan
