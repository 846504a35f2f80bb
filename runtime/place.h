// Place: which part of a run's work the calling thread is at: the stage, the layer, forward or backward. Spans of the
// trace carry the place at which they were enqueued.
#pragma once

#include <cstdint>

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

// The calling thread is there until this goes.
class [[nodiscard]] AtPlace {
 public:
  explicit AtPlace(const Place& place) : before_(CurrentPlace()) { CurrentPlace() = place; }
  ~AtPlace() { CurrentPlace() = before_; }
  AtPlace(const AtPlace&) = delete;
  AtPlace& operator=(const AtPlace&) = delete;

 private:
  const Place before_;
};

inline AtPlace InStage(const char* stage) { return AtPlace({stage, CurrentPlace().layer, CurrentPlace().pass}); }
inline AtPlace InLayer(int64_t layer) {
  return AtPlace({CurrentPlace().stage, static_cast<int>(layer), CurrentPlace().pass});
}
inline AtPlace InPass(Pass pass) { return AtPlace({CurrentPlace().stage, CurrentPlace().layer, pass}); }

}  // namespace longspan
