#include "runtime/error.h"

#include <cstring>

namespace longspan {
namespace {

std::string& Prefix() {
  static std::string prefix;
  return prefix;
}

// The path inside the project.
const char* Relative(const char* file) {
  const size_t root = std::strlen(LONGSPAN_SOURCE_ROOT);
  return std::strncmp(file, LONGSPAN_SOURCE_ROOT, root) == 0 ? file + root + 1 : file;
}

std::string Located(const char* file, int line, const std::string& message) {
  return fmt::format("{}{}:{}: {}", Prefix(), Relative(file), line, message);
}

}  // namespace

void SetProcessIdentity(int rank, int world, const std::string& host) {
  Prefix() = fmt::format("[rank {}/{} {}] ", rank, world, host);
}

std::string ProcessPrefix() { return Prefix(); }

void ThrowError(ExitCode code, const char* file, int line, const std::string& message) {
  const bool ours = code == ExitCode::kRankFailed || code == ExitCode::kStalled;
  throw Error(code, ours ? Located(file, line, message) : Prefix() + message);
}

void ThrowOutOfMemory(const char* file, int line, const std::string& message) {
  throw OutOfMemory(Located(file, line, message));
}

}  // namespace longspan
