// DevicePoll: a thread that asks, ten times a second, what a GPU has done and what went wrong. The driver may keep it
// waiting as long as it likes: whoever watches looks at what it last said, and at how long it has been silent.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace longspan {

class DevicePoll {
 public:
  // `ask` returns what went wrong, "" for nothing (PollTransfers).
  explicit DevicePoll(std::function<std::string()> ask);
  ~DevicePoll() { End(); }
  DevicePoll(const DevicePoll&) = delete;
  DevicePoll& operator=(const DevicePoll&) = delete;

  void End();  // waits for an answer that is due, and asks no more

  std::string failure() const;    // of the last answer
  double silent_seconds() const;  // since the question that is not answered; 0: none is due

 private:
  void Run();

  const std::function<std::string()> ask_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  std::string failure_;
  std::atomic<double> asked_ = 0;  // WallSeconds; 0: no answer is due
  std::thread thread_;             // last: it uses all of these
};

}  // namespace longspan
