// Trace: what ran, for how long, and how many bytes and FLOPs it was worth. Counted beside the launch, per span name.
//
// CPU kernels and transfers are launched through Launch(), which enqueues the work and times it where it runs. Work of
// other devices is added as pending: its time is asked for when somebody wants the totals.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "runtime/device.h"

namespace longspan {

struct Cost {
  double flops = 0;  // floating-point operations, a multiply-add counts two
  double bytes = 0;  // moved: each input read once, each output written once; for a transfer, bytes received
};

struct SpanTotal {
  int64_t count = 0;
  double seconds = 0;
  double flops = 0;
  double bytes = 0;
};

// Totals of this process since the last Reset, by name ("attention.window", "comm.all_gather"). Any thread.
class Trace {
 public:
  static Trace& Get();
  void Add(const char* name, double seconds, const Cost& cost);
  // `seconds` is called once, later, and may wait until the span has ended.
  void AddPending(const char* name, const Cost& cost, std::function<double()> seconds);
  void Reset();                               // waits for pending spans, and forgets them
  std::map<std::string, SpanTotal> totals();  // waits for pending spans

 private:
  struct Pending {
    const char* name;
    Cost cost;
    std::function<double()> seconds;
  };
  void AddLocked(const char* name, double seconds, const Cost& cost);
  void Resolve(size_t keep);  // all pending but the newest `keep`

  std::mutex mutex_;
  std::map<std::string, SpanTotal> totals_;
  std::deque<Pending> pending_;
};

// Enqueues `task` on a CPU stream as the span `name` (a literal).
void Launch(Stream& stream, const char* name, const Cost& cost, std::function<void()> task);

double WallSeconds();     // a steady clock
double ProcessSeconds();  // since the system started this process; 0 where it does not say
std::string UtcTime();    // now: "2026-01-31T12:00:00Z"

}  // namespace longspan
