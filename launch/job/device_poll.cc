#include "launch/job/device_poll.h"

#include <chrono>
#include <utility>

#include "runtime/place.h"
#include "runtime/planted_fault.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr auto kPause = std::chrono::milliseconds(100);  // between questions

}  // namespace

DevicePoll::DevicePoll(std::function<std::string()> ask) : ask_(std::move(ask)), thread_([this] { Run(); }) {}

void DevicePoll::End() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::string DevicePoll::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

double DevicePoll::silent_seconds() const {
  const double asked = asked_;
  return asked > 0 ? WallSeconds() - asked : 0;
}

void DevicePoll::Run() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kPause, [this] { return ending_; })) {
    lock.unlock();
    asked_ = WallSeconds();
    std::string failure;
    {
      const auto stage = InStage("poll");
      PlantedFault::Get().Strike(CurrentPlace());
      failure = ask_();
    }
    lock.lock();
    failure_ = std::move(failure);
    asked_ = 0;
  }
}

}  // namespace longspan
