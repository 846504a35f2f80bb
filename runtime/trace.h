// Trace: what ran, where, when, for how long, and how many bytes and FLOPs it was worth.
//
// CPU kernels and transfers are launched through Launch(), which enqueues the work and times it where it runs. Work of
// other devices is added as pending: its times are asked for later (Resolve). Every span counts in the totals by name;
// while spans are kept (Keep), each is there to be taken, for the profile of a run (launch/report/recorder.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/device.h"
#include "runtime/place.h"

namespace longspan {

struct Cost {
  double flops = 0;  // floating-point operations, a multiply-add counts two
  double bytes = 0;  // moved: each input read once, each output written once; for a transfer, bytes received
  double far = 0;    // of a transfer's bytes, those from other nodes; 0 where that is not known (NCCL)
};

// Which call of which group of ranks: the same on all of them. Not of a transfer: size 0.
struct TransferId {
  uint32_t group = 0;    // of the communicator
  int32_t size = 0;      // ranks of the group
  int64_t sequence = 0;  // of the call
};

struct TraceSpan {
  const char* name = "";  // a literal: "attention.window", "comm.all_gather"
  Cost cost;
  TransferId transfer;
  Place place;
  Lane lane = Lane::kHost;
  int64_t period = 0;  // of the trace when it was enqueued
  double begin = 0;    // WallSeconds; 0 where unknown
  double seconds = 0;
  double cpu = 0;  // seconds for which its thread ran; 0 on other devices
};

struct SpanTotal {
  int64_t count = 0;
  double seconds = 0;
  double flops = 0;
  double bytes = 0;
  double far = 0;
};

// Of this process. Any thread.
class Trace {
 public:
  static Trace& Get();
  void Add(const TraceSpan& span);
  // A wait of the calling thread that began then (WallSeconds) and ends now.
  void AddWait(const char* name, double begin);
  // `times` fills in begin and seconds; it is called once, later, and may wait until the span has ended.
  void AddPending(const TraceSpan& span, std::function<void(TraceSpan*)> times);

  void Reset();                               // waits for pending spans, and forgets all
  std::map<std::string, SpanTotal> totals();  // by name, since the last Reset; waits for pending spans

  // Whether spans count at all, from now on; until told otherwise they do. Else GPUs record no events for them.
  void Enable(bool enable) { enabled_ = enable; }
  bool enabled() const { return enabled_; }
  void Keep(bool keep);                                   // the spans, from now on
  void BeginPeriod(int64_t period) { period_ = period; }  // of spans enqueued from now on
  int64_t period() const { return period_; }
  // The spans kept since the last Take. Those pending of periods up to `resolved` are waited for, others stay.
  std::vector<TraceSpan> Take(int64_t resolved);

 private:
  struct Pending {
    TraceSpan span;
    std::function<void(TraceSpan*)> times;
  };
  void ResolveAllBut(size_t keep);  // the newest
  bool PopPending(size_t keep, int64_t period, Pending* oldest);

  std::mutex mutex_;
  std::unordered_map<const char*, SpanTotal> totals_;
  std::deque<Pending> pending_;
  bool keep_ = false;
  std::atomic<bool> enabled_ = true;
  std::atomic<int64_t> period_ = 0;
  std::vector<TraceSpan> kept_;
};

// Enqueues `task` on a CPU stream as the span `name` (a literal).
void Launch(Stream& stream, const char* name, const Cost& cost, std::function<void()> task,
            const TransferId& transfer = {});

double WallSeconds();       // a steady clock
double ProcessSeconds();    // since the system started this process; 0 where it does not say
double ThreadCpuSeconds();  // for which the calling thread has run
std::string UtcTime();      // now: "2026-01-31T12:00:00Z"

}  // namespace longspan
