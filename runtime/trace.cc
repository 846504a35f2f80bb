#include "runtime/trace.h"

#include <chrono>

namespace longspan {

Trace& Trace::Get() {
  static Trace trace;
  return trace;
}

void Trace::Add(const char* name, double seconds, const Cost& cost) {
  SpanTotal& total = totals_[name];
  total.count += 1;
  total.seconds += seconds;
  total.flops += cost.flops;
  total.bytes += cost.bytes;
}

void Trace::Reset() { totals_.clear(); }

void Launch(Stream& stream, const char* name, const Cost& cost, std::function<void()> task) {
  stream.Enqueue([name, cost, task = std::move(task)] {
    const double begin = WallSeconds();
    task();
    Trace::Get().Add(name, WallSeconds() - begin, cost);
  });
}

double WallSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace longspan
