#include "runtime/trace.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <sstream>

namespace longspan {
namespace {

constexpr size_t kMostPending = 8192;  // then the older half is resolved: it ended long ago

}  // namespace

Trace& Trace::Get() {
  static Trace trace;
  return trace;
}

void Trace::Add(const char* name, double seconds, const Cost& cost) {
  const std::lock_guard lock(mutex_);
  AddLocked(name, seconds, cost);
}

void Trace::AddLocked(const char* name, double seconds, const Cost& cost) {
  SpanTotal& total = totals_[name];
  total.count += 1;
  total.seconds += seconds;
  total.flops += cost.flops;
  total.bytes += cost.bytes;
}

void Trace::AddPending(const char* name, const Cost& cost, std::function<double()> seconds) {
  size_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    pending_.push_back({name, cost, std::move(seconds)});
    count = pending_.size();
  }
  if (count >= kMostPending) Resolve(kMostPending / 2);
}

// Without the lock while it waits: what it waits for may be work that adds spans itself.
void Trace::Resolve(size_t keep) {
  while (true) {
    Pending oldest;
    {
      const std::lock_guard lock(mutex_);
      if (pending_.size() <= keep) return;
      oldest = std::move(pending_.front());
      pending_.pop_front();
    }
    Add(oldest.name, oldest.seconds(), oldest.cost);
  }
}

void Trace::Reset() {
  Resolve(0);
  const std::lock_guard lock(mutex_);
  totals_.clear();
}

std::map<std::string, SpanTotal> Trace::totals() {
  Resolve(0);
  const std::lock_guard lock(mutex_);
  return totals_;
}

void Launch(Stream& stream, const char* name, const Cost& cost, std::function<void()> task) {
  if (stream.planned()) {
    Trace::Get().Add(name, 0, cost);
    return;
  }
  stream.Enqueue([name, cost, task = std::move(task)] {
    const double begin = WallSeconds();
    task();
    Trace::Get().Add(name, WallSeconds() - begin, cost);
  });
}

std::string UtcTime() { return fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr))); }

double ProcessSeconds() {
  // "PID (NAME) STATE ..", of which the 20th after the name is when it was started, in ticks since the boot.
  std::ifstream file("/proc/self/stat");
  std::string text;
  std::getline(file, text);
  std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  std::string field;
  for (int i = 0; i < 20; ++i) fields >> field;
  timespec now{};
  if (!fields || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) - std::stod(field) / ticks;
}

double WallSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace longspan
