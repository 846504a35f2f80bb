#include "launch/train/stopping.h"

#include <array>
#include <csignal>
#include <filesystem>

#include "launch/job/signals.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

enum Reason : int { kNone, kFile, kTime, kSigusr1, kSigusr2, kSigint, kSigterm };  // the most urgent last

Reason OfSignal(int signal) {
  switch (signal) {
    case SIGUSR1:
      return kSigusr1;
    case SIGUSR2:
      return kSigusr2;
    case SIGINT:
      return kSigint;
    case SIGTERM:
      return kSigterm;
    default:
      return kNone;
  }
}

constexpr double kLookSeconds = 1;  // between two looks for the file: the folder may be far away

}  // namespace

Stopping::Stopping(Job& job, const RunConfig& config, const std::string& folder, double start, bool first)
    : job_(job), config_(config), file_(folder + "/stop"), start_(start) {
  std::error_code error;
  if (first && job.root()) std::filesystem::remove(file_, error);
}

double Stopping::wish() {
  if (const Reason signal = OfSignal(PendingStopSignal()); signal != kNone) return signal;
  const double now = WallSeconds(), limit = config_.train.max_minutes * 60;
  if (limit > 0 && now - start_ >= limit) return kTime;
  if (job_.root() && now - looked_ >= kLookSeconds) {
    std::error_code error;
    found_ = std::filesystem::exists(file_, error);
    looked_ = now;
  }
  return found_ ? kFile : kNone;
}

bool Stopping::Poll() {
  Agree(job_.Reduce(wish(), ReduceOp::kMax));
  return agreed();
}

bool Stopping::hurried() const { return agreed_ == kSigint || agreed_ == kSigterm; }

std::string Stopping::reason() const {
  const std::array<std::string, 7> names = {
      "",       file_,    fmt::format("train.max_minutes = {}", config_.train.max_minutes), "SIGUSR1", "SIGUSR2",
      "SIGINT", "SIGTERM"};
  return names[agreed_];
}

}  // namespace longspan
