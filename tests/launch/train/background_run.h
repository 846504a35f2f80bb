// A run of the program in the background, that gets signals.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/program.h"

namespace longspan {

class BackgroundRun {
 public:
  // `longspan ARGUMENTS` on `ranks` ranks; what it prints goes to the file `said`.
  BackgroundRun(int ranks, const std::string& arguments, const std::string& said) : said_(said) {
    std::filesystem::remove(said);
    const std::string launcher = ranks > 1 ? fmt::format("'{}' -np {} ", LONGSPAN_MPIEXEC, ranks) : "";
    const std::string command = fmt::format("exec {}'{}' {} > '{}' 2>&1", launcher, LONGSPAN_PROGRAM, arguments, said);
    pid_ = fork();
    if (pid_ == 0) {
      execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      _exit(127);
    }
  }
  ~BackgroundRun() {
    if (!ended_) kill(pid_, SIGKILL);
    if (!ended_) waitpid(pid_, nullptr, 0);
  }
  BackgroundRun(const BackgroundRun&) = delete;
  BackgroundRun& operator=(const BackgroundRun&) = delete;

  // Waits until `there`: for some minutes on a busy machine.
  void Await(const std::function<bool()>& there) { EXPECT_TRUE(ComesTrue(there, std::chrono::minutes(4))) << said(); }
  // Whether it does within that time.
  static bool ComesTrue(const std::function<bool()>& there, std::chrono::seconds limit) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!there()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return true;
  }
  void AwaitText(const std::string& text) {
    Await([&] { return said().find(text) != std::string::npos; });
  }
  // Until the process, of a single rank, notes signals.
  void AwaitHandlers() {
    Await([&] {
      const std::string status = ReadFile(fmt::format("/proc/{}/status", pid_));
      const size_t at = status.find("SigCgt:");
      return at != std::string::npos && (std::stoull(status.substr(at + 7), nullptr, 16) >> (SIGUSR1 - 1) & 1) != 0;
    });
  }
  void Signal(int signal) const { kill(pid_, signal); }  // to the launcher, if there is one
  std::vector<pid_t> Children() const {
    std::istringstream pids(ReadFile(fmt::format("/proc/{}/task/{}/children", pid_, pid_)));
    std::vector<pid_t> children;
    for (pid_t pid = 0; pids >> pid;) children.push_back(pid);
    return children;
  }
  std::string said() const { return ReadFile(said_); }
  // Its exit code, once it has ended; below 0 the signal that ended it.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    ended_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  const std::string said_;
  pid_t pid_ = -1;
  bool ended_ = false;
};

}  // namespace longspan
