#include "launch/train/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr double kRefreshSeconds = 0.1;
constexpr int kBarWidth = 24;

// Launchers give ranks terminals of their own whatever their output goes to, often a log.
bool Moves(std::FILE* out) {
  if (const char* asked = std::getenv("LONGSPAN_PROGRESS")) return std::string_view(asked) == "bar";
  for (const char* launcher : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"}) {
    if (std::getenv(launcher) != nullptr) return false;
  }
  return isatty(fileno(out)) != 0;
}

}  // namespace

Progress::Progress(std::string what, int64_t total, std::FILE* out, Plain plain)
    : what_(std::move(what)), total_(total), out_(out), terminal_(Moves(out)), plain_(plain) {}

void Progress::Update(int64_t done, const std::string& note) {
  const double share = total_ > 0 ? static_cast<double>(done) / static_cast<double>(total_) : 1;
  if (!terminal_) {
    if (plain_ == Plain::kNothing || static_cast<int64_t>(10 * share) <= tenths_) return;
    tenths_ = static_cast<int64_t>(10 * share);
    fmt::print(out_, "{} {:.0f}%, {}\n", what_, 100 * share, note);
    return;
  }
  const double now = WallSeconds();
  if (first_done_ < 0) {
    first_done_ = done;
    first_seconds_ = now;
  }
  if (now - shown_ < kRefreshSeconds && done < total_) return;
  shown_ = now;
  std::string left = "?";
  if (done > first_done_) {
    const double each = (now - first_seconds_) / static_cast<double>(done - first_done_);
    left = FormatSeconds(each * static_cast<double>(total_ - done));
  }
  const int filled = static_cast<int>(share * kBarWidth);
  fmt::print(out_, "\r{} [{:=<{}}{: <{}}] {:.0f}%  {}  ETA {}\033[K", what_, "", filled, "", kBarWidth - filled,
             100 * share, note, left);
  std::fflush(out_);
}

Progress::~Progress() {
  if (shown_ != 0 && std::uncaught_exceptions() > 0) {
    fmt::print(out_, "\n");
    std::fflush(out_);
  } else {
    Clear();
  }
}

void Progress::Clear() {
  if (shown_ == 0) return;
  fmt::print(out_, "\r\033[K");
  shown_ = 0;
}

std::string FormatSeconds(double seconds) {
  const auto whole = static_cast<int64_t>(std::ceil(seconds));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

}  // namespace longspan
