// What calls of the C interface return: errors within the library become a status and a sentence.
#pragma once

#include <exception>
#include <mutex>
#include <string>
#include <utility>

#include "nsa/nsa.h"
#include "runtime/error.h"

namespace longspan {

class StatusError : public std::runtime_error {
 public:
  StatusError(NSAStatus status, const std::string& message) : std::runtime_error(message), status_(status) {}
  NSAStatus status() const { return status_; }

 private:
  NSAStatus status_;
};

// Throws StatusError: Refuse(NSA_ERROR_LENGTH, "tokens: expected at most {}, found {}", most, tokens).
template <typename... Args>
[[noreturn]] void Refuse(NSAStatus status, fmt::format_string<Args...> text, Args&&... args) {
  throw StatusError(status, fmt::format(text, std::forward<Args>(args)...));
}

// The name of an argument and what it must be: not null.
template <typename T>
T* Required(T* pointer, const char* name, const char* what) {
  if (pointer == nullptr) Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected {}, found null", name, what);
  return pointer;
}

inline void RequireAtLeast(const char* name, int64_t value, int64_t least) {
  if (value < least) Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected {} or more, found {}", name, least, value);
}

// A whole number.
inline void RequireWithin(const char* name, int64_t value, int64_t first, int64_t last) {
  if (value >= first && value <= last) return;
  Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected {} to {}, found {}", name, first, last, value);
}

// Any number, not NaN; `end` is not part of the range.
inline void RequireInRange(const char* name, double value, double first, double end) {
  if (value >= first && value < end) return;
  Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected a number in [{},{}), found {}", name, first, end, value);
}

// The status of the error being handled, whose sentence, after `call`, becomes the thread's last.
NSAStatus CurrentError(const char* call) noexcept;

const char* LastError();

// Held while a context or model is made or ends: that asks the process's environment and sets up its devices.
std::mutex& SetupMutex();

// Runs a call; no error leaves it.
template <typename F>
int Guard(const char* call, const F& f) noexcept {
  try {
    f();
    return NSA_SUCCESS;
  } catch (...) {
    return CurrentError(call);
  }
}

}  // namespace longspan
