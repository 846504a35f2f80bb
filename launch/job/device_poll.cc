#include "launch/job/device_poll.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "runtime/error.h"
#include "runtime/place.h"
#include "runtime/planted_fault.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr int kTick = 100;  // milliseconds between questions

}  // namespace

DevicePoll::DevicePoll(std::function<std::string()> ask) : ask_(std::move(ask)), end_(eventfd(0, EFD_CLOEXEC)) {
  LS_CHECK(end_ >= 0, "no eventfd for the thread that asks the device: {}", std::strerror(errno));
  thread_ = std::thread([this] { Run(); });
}

void DevicePoll::End() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(end_, &one, sizeof(one));
  thread_.join();
  close(end_);
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
  for (pollfd wait = {end_, POLLIN, 0}; poll(&wait, 1, kTick) <= 0;) {
    asked_ = WallSeconds();
    std::string failure;
    {
      const auto stage = InStage("poll");
      PlantedFault::Get().Strike(CurrentPlace());
      failure = ask_();
    }
    {
      const std::lock_guard lock(mutex_);
      failure_ = std::move(failure);
    }
    asked_ = 0;
  }
}

}  // namespace longspan
