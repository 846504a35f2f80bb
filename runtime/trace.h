// Trace: what ran, for how long, and how many bytes and FLOPs it was worth. Counted beside the launch, per span name.
//
// CPU kernels and transfers are launched through Launch(), which enqueues the work and times it where it runs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
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

// Totals of this process since the last Reset, by name ("attention.window", "comm.all_gather").
class Trace {
 public:
  static Trace& Get();
  void Add(const char* name, double seconds, const Cost& cost);
  void Reset();
  const std::map<std::string, SpanTotal>& totals() const { return totals_; }

 private:
  std::map<std::string, SpanTotal> totals_;
};

// Enqueues `task` on a CPU stream as the span `name` (a literal).
void Launch(Stream& stream, const char* name, const Cost& cost, std::function<void()> task);

double WallSeconds();  // a steady clock

}  // namespace longspan
