// PlantedFault: for tests only, makes one rank slow in one stage, or ends or hangs it there. Without the environment
// variable LONGSPAN_PLANTED_FAULT nothing is.
//
//   LONGSPAN_PLANTED_FAULT = RANK:STAGE:PASS:HOW:SHARE:STEP, as in 1:window:forward:sleep:0.2:30
//
// On rank RANK, from step STEP on, the first work of STAGE in PASS (none, forward, backward) of every step takes longer
// by SHARE of what the step before took without that, in which the thread sleeps (HOW = sleep) or computes (spin).
// STAGE = load is the thread that reads the next step's sequences. Where HOW is hang, exit, stop (SIGSTOP) or kill
// (SIGKILL), that befalls the thread or process before that work, on a GPU before it is enqueued, of layer SHARE, from
// the start on where STEP is 0; a line on stderr says so.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "runtime/place.h"

namespace longspan {

class PlantedFault {
 public:
  static PlantedFault& Get();
  // From now on `step` runs on this rank; the step before took `seconds`.
  void BeginStep(int rank, int64_t step, double seconds);
  // Work at that place is about to be done.
  void Strike(const Place& place) {
    if (fault_ && fault_->fatal()) Befall(place);
  }
  // Work at that place has been done.
  void SlowDown(const Place& place) {
    if (fault_ && !fault_->fatal()) Suffer(place);
  }

 private:
  struct Fault {
    int rank;
    std::string stage;
    Pass pass;
    std::string how;
    double share;
    int64_t step;
    bool fatal() const { return how != "sleep" && how != "spin"; }
  };
  PlantedFault();  // throws Error (configuration) where the variable is wrong
  void Suffer(const Place& place);
  void Befall(const Place& place);

  std::optional<Fault> fault_;
  std::mutex mutex_;
  std::atomic<bool> armed_ = false;  // a fatal one's step has begun
  double shortest_ = 1e300;          // seconds of a step
  double added_ = 0, due_ = 0;       // to this step; and not yet
};

}  // namespace longspan
