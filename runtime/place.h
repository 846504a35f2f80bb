// Place: which part of a run's work the calling thread is at: the stage, the layer, forward or backward. Spans of the
// trace carry the place at which they were enqueued.
#pragma once

#include <cstdint>

#include "runtime/profiler_range.h"

namespace longspan {

enum class Pass : uint8_t { kNone, kForward, kBackward };  // what is made again for the backward is part of it

struct Place {
  const char* stage = "other";  // a literal
  int layer = -1;               // -1: of none
  Pass pass = Pass::kNone;
};

// Of the calling thread.
inline Place& CurrentPlace() {
  static thread_local Place place;
  return place;
}

// The calling thread is there until this goes, within a profiler's range of this name.
class [[nodiscard]] AtPlace {
 public:
  AtPlace(const Place& place, const char* range, int64_t number = -1) : before_(CurrentPlace()) {
    CurrentPlace() = place;
    PushRange(range, number);
  }
  explicit AtPlace(const Place& place) : AtPlace(place, place.stage, place.layer) {}
  ~AtPlace() {
    PopRange();
    CurrentPlace() = before_;
  }
  AtPlace(const AtPlace&) = delete;
  AtPlace& operator=(const AtPlace&) = delete;

 private:
  const Place before_;
};

inline AtPlace InStage(const char* stage) { return AtPlace({stage, CurrentPlace().layer, CurrentPlace().pass}, stage); }
inline AtPlace InLayer(int64_t layer) {
  return AtPlace({CurrentPlace().stage, static_cast<int>(layer), CurrentPlace().pass}, "layer", layer);
}
inline AtPlace InPass(Pass pass) {
  return AtPlace({CurrentPlace().stage, CurrentPlace().layer, pass}, pass == Pass::kForward ? "forward" : "backward");
}

}  // namespace longspan
