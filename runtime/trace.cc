#include "runtime/trace.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <limits>
#include <sstream>
#include <utility>

#include "runtime/planted_fault.h"

namespace longspan {
namespace {

constexpr size_t kMostPending = 8192;  // then the older half is resolved: it ended long ago
constexpr double kShort = 1e-4;        // seconds in which a thread that computes keeps its core

// For which the calling thread has run, as of one time after another. To ask the system takes half a microsecond: what
// is shorter than kShort counts as run.
class CpuClock {
 public:
  double At(double wall) {
    cpu_ = wall - wall_ < kShort ? cpu_ + wall - wall_ : ThreadCpuSeconds();
    wall_ = wall;
    return cpu_;
  }

 private:
  double wall_ = 0, cpu_ = 0;
};

}  // namespace

Trace& Trace::Get() {
  static Trace trace;
  return trace;
}

void Trace::Add(const TraceSpan& span) {
  if (!enabled_) return;
  const std::lock_guard lock(mutex_);
  SpanTotal& total = totals_[span.name];
  total.count += 1;
  total.seconds += span.seconds;
  total.flops += span.cost.flops;
  total.bytes += span.cost.bytes;
  total.far += span.cost.far;
  if (keep_) kept_.push_back(span);
}

void Trace::AddWait(const char* name, double begin) {
  TraceSpan span;
  span.name = name;
  span.place = CurrentPlace();
  span.period = period();
  span.begin = begin;
  span.seconds = WallSeconds() - begin;
  Add(span);
}

void Trace::AddPending(const TraceSpan& span, std::function<void(TraceSpan*)> times) {
  size_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    pending_.push_back({span, std::move(times)});
    pending_.back().span.period = period_;
    count = pending_.size();
  }
  if (count >= kMostPending) ResolveAllBut(kMostPending / 2);
}

bool Trace::PopPending(size_t keep, int64_t period, Pending* oldest) {
  const std::lock_guard lock(mutex_);
  if (pending_.size() <= keep || pending_.front().span.period > period) return false;
  *oldest = std::move(pending_.front());
  pending_.pop_front();
  return true;
}

// Without the lock while it waits: what it waits for may be work that adds spans itself.
void Trace::ResolveAllBut(size_t keep) {
  Pending oldest;
  while (PopPending(keep, std::numeric_limits<int64_t>::max(), &oldest)) {
    oldest.times(&oldest.span);
    Add(oldest.span);
  }
}

void Trace::Reset() {
  ResolveAllBut(0);
  const std::lock_guard lock(mutex_);
  totals_.clear();
  kept_.clear();
}

std::map<std::string, SpanTotal> Trace::totals() {
  ResolveAllBut(0);
  const std::lock_guard lock(mutex_);
  std::map<std::string, SpanTotal> totals;  // literals of one text may lie in several places
  for (const auto& [name, part] : totals_) {
    SpanTotal& total = totals[name];
    total.count += part.count;
    total.seconds += part.seconds;
    total.flops += part.flops;
    total.bytes += part.bytes;
    total.far += part.far;
  }
  return totals;
}

void Trace::Keep(bool keep) {
  const std::lock_guard lock(mutex_);
  keep_ = keep;
}

std::vector<TraceSpan> Trace::Take(int64_t resolved) {
  Pending oldest;
  while (PopPending(0, resolved, &oldest)) {
    oldest.times(&oldest.span);
    Add(oldest.span);
  }
  const std::lock_guard lock(mutex_);
  std::vector<TraceSpan> kept;
  kept.reserve(kept_.capacity());
  std::swap(kept, kept_);
  return kept;
}

void Launch(Stream& stream, const char* name, const Cost& cost, std::function<void()> task,
            const TransferId& transfer) {
  TraceSpan span;
  span.name = name;
  span.cost = cost;
  span.transfer = transfer;
  span.place = CurrentPlace();
  span.period = Trace::Get().period();
  if (stream.planned()) {
    Trace::Get().Add(span);
    return;
  }
  stream.Enqueue([span, task = std::move(task)]() mutable {
    static thread_local CpuClock clock;
    span.begin = WallSeconds();
    const double cpu = clock.At(span.begin);
    PlantedFault::Get().Strike(span.place);
    task();
    PlantedFault::Get().SlowDown(span.place);
    // Within a system call the thread may lose its core: that is time of the span.
    span.cpu = std::max(0.0, clock.At(WallSeconds()) - cpu);
    span.seconds = WallSeconds() - span.begin;
    Trace::Get().Add(span);
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

double ThreadCpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace longspan
