#include "nsa/status.h"

#include <new>
#include <stdexcept>

namespace longspan {
namespace {

std::string& Sentence() {
  static thread_local std::string sentence;
  return sentence;
}

NSAStatus Keep(NSAStatus status, const char* call, const char* what) {
  try {
    Sentence() = fmt::format("{}: {}", call, what);
  } catch (...) {
    Sentence().clear();  // no memory for it
  }
  return status;
}

NSAStatus StatusOf(ExitCode code) {
  switch (code) {
    case ExitCode::kUsage:
    case ExitCode::kConfig:
      return NSA_ERROR_INVALID_ARGUMENT;
    case ExitCode::kData:
    case ExitCode::kIo:
      return NSA_ERROR_FILE;
    default:
      return NSA_ERROR_INTERNAL;
  }
}

}  // namespace

NSAStatus CurrentError(const char* call) noexcept {
  try {
    throw;
  } catch (const StatusError& error) {
    return Keep(error.status(), call, error.what());
  } catch (const OutOfMemory& error) {
    return Keep(NSA_ERROR_OUT_OF_MEMORY, call, error.what());
  } catch (const Error& error) {
    return Keep(StatusOf(error.code()), call, error.what());
  } catch (const std::bad_alloc&) {
    return Keep(NSA_ERROR_OUT_OF_MEMORY, call, "out of host memory");
  } catch (const std::exception& error) {
    return Keep(NSA_ERROR_INTERNAL, call, error.what());
  } catch (...) {
    return Keep(NSA_ERROR_INTERNAL, call, "an unknown error");
  }
}

std::mutex& SetupMutex() {
  static std::mutex mutex;
  return mutex;
}

const char* LastError() { return Sentence().c_str(); }

}  // namespace longspan
