#include "runtime/planted_fault.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string_view>
#include <thread>
#include <utility>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr double kMostUsual = 4;  // of the shortest step

}  // namespace

PlantedFault& PlantedFault::Get() {
  static PlantedFault fault;
  return fault;
}

PlantedFault::PlantedFault() {
  const char* const text = std::getenv("LONGSPAN_PLANTED_FAULT");
  if (!text) return;
  Fault fault{};
  std::array<char, 32> stage{}, pass{}, how{};
  long long step = 0;
  const int found = std::sscanf(text, "%d:%31[^:]:%31[^:]:%31[^:]:%lf:%lld", &fault.rank, stage.data(), pass.data(),
                                how.data(), &fault.share, &step);
  fault.stage = stage.data();
  fault.step = step;
  const std::string direction = pass.data();
  fault.pass = direction == "forward" ? Pass::kForward : direction == "backward" ? Pass::kBackward : Pass::kNone;
  fault.how = how.data();
  constexpr std::string_view kManners[] = {"sleep", "spin", "hang", "exit", "stop", "kill"};
  const bool known = std::find(std::begin(kManners), std::end(kManners), fault.how) != std::end(kManners);
  if (found != 6 || (fault.pass == Pass::kNone && direction != "none") || !known) {
    Fail(ExitCode::kConfig, "LONGSPAN_PLANTED_FAULT: expected RANK:STAGE:PASS:HOW:SHARE:STEP, found '{}'", text);
  }
  fault_ = fault;
}

void PlantedFault::BeginStep(int rank, int64_t step, double seconds) {
  if (!fault_ || rank != fault_->rank) return;
  armed_ = step >= fault_->step;
  const std::lock_guard lock(mutex_);
  if (seconds > 0) shortest_ = std::min(shortest_, seconds);
  // What a loader took may lie in a later step than the one it is taken for: it does not grow by itself.
  const double usual = std::clamp(seconds - added_, shortest_, kMostUsual * shortest_);
  added_ = due_ = seconds > 0 && step >= fault_->step ? fault_->share * usual : 0;
}

void PlantedFault::Suffer(const Place& place) {
  if (place.stage != fault_->stage || place.pass != fault_->pass) return;
  double seconds = 0;
  {
    const std::lock_guard lock(mutex_);
    seconds = std::exchange(due_, 0);
  }
  if (seconds <= 0) return;
  if (fault_->how == "sleep") {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    return;
  }
  const double begin = WallSeconds();
  while (WallSeconds() - begin < seconds) {
  }
}

void PlantedFault::Befall(const Place& place) {
  if (!armed_ || place.stage != fault_->stage || place.pass != fault_->pass) return;
  if (place.layer >= 0 && place.layer != static_cast<int>(fault_->share)) return;
  fmt::print(stderr, "planted fault: {}\n", fault_->how);
  if (fault_->how == "exit") _exit(7);
  if (fault_->how == "stop") kill(getpid(), SIGSTOP);
  if (fault_->how == "kill") kill(getpid(), SIGKILL);
  while (fault_->how == "hang") pause();
}

}  // namespace longspan
