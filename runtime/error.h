// Errors that say where: `[rank 3/8 node7] what: what was expected, what was found`. Where the user's input is at
// fault, `what` is his file, key or option; where the program may be, a rule of its own is broken or a machine fails
// (kRankFailed, kStalled), the place in the source.
//
// Everything that can go wrong throws Error. main() prints it, ends the other ranks and exits with its code.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace longspan {

// The exit codes of every subcommand (README, "Exit codes").
enum class ExitCode : int {
  kOk = 0,
  kUsage = 64,       // wrong command line
  kData = 65,        // bad dataset, case file or checkpoint
  kRankFailed = 70,  // a rank failed, or an internal rule was broken
  kIo = 74,          // a file could not be read or written
  kStopped = 75,     // stopped in good order, resumable
  kStalled = 76,     // communication stalled
  kConfig = 78,      // configuration
  kNonFinite = 79,   // loss or gradient is NaN or infinite
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// Memory that a device or a host does not have.
class OutOfMemory : public Error {
 public:
  explicit OutOfMemory(const std::string& message) : Error(ExitCode::kRankFailed, message) {}
};

// Who this process is; part of every error from then on. Before the call errors carry no rank.
void SetProcessIdentity(int rank, int world, const std::string& host);

// "[rank 3/8 node7] " or "" when the identity is not known.
std::string ProcessPrefix();

[[noreturn]] void ThrowError(ExitCode code, const char* file, int line, const std::string& message);
[[noreturn]] void ThrowOutOfMemory(const char* file, int line, const std::string& message);

// A format string that remembers its place in the source. (std::source_location is not known to clang 14.)
template <typename... Args>
struct LocatedFormat {
  template <typename String>
  consteval LocatedFormat(const String& text, const char* source = __builtin_FILE(), int number = __builtin_LINE())
      : format(text), file(source), line(number) {}
  fmt::format_string<Args...> format;
  const char* file;
  int line;
};

// Throws Error, for a failed rank with the caller's file and line: Fail(ExitCode::kData, "{}: expected {}, found {}",
// path, a, b).
template <typename... Args>
[[noreturn]] void Fail(ExitCode code, LocatedFormat<std::type_identity_t<Args>...> text, Args&&... args) {
  ThrowError(code, text.file, text.line, fmt::format(text.format, std::forward<Args>(args)...));
}

// Throws OutOfMemory.
template <typename... Args>
[[noreturn]] void FailForMemory(LocatedFormat<std::type_identity_t<Args>...> text, Args&&... args) {
  ThrowOutOfMemory(text.file, text.line, fmt::format(text.format, std::forward<Args>(args)...));
}

}  // namespace longspan

// Internal rule: LS_CHECK(rows > 0, "matmul: rows must be positive, found {}", rows). The text is built only on
// failure.
#define LS_CHECK(condition, ...)                                        \
  do {                                                                  \
    if (!(condition)) [[unlikely]] {                                    \
      ::longspan::Fail(::longspan::ExitCode::kRankFailed, __VA_ARGS__); \
    }                                                                   \
  } while (false)
