#include "launch/train/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr double kRefreshSeconds = 0.1;
constexpr int kBarWidth = 24;

}  // namespace

Progress::Progress(std::string what, int64_t total)
    : what_(std::move(what)), total_(total), terminal_(isatty(STDERR_FILENO) != 0), start_(WallSeconds()) {}

Progress::~Progress() {
  if (terminal_) fmt::print(stderr, "\r\033[K");
}

void Progress::Update(int64_t done, const std::string& note) {
  const double now = WallSeconds(), share = total_ > 0 ? static_cast<double>(done) / static_cast<double>(total_) : 1;
  if (!terminal_) {
    if (static_cast<int64_t>(10 * share) <= tenths_) return;
    tenths_ = static_cast<int64_t>(10 * share);
    fmt::print(stderr, "{} {:.0f}%, {}\n", what_, 100 * share, note);
    return;
  }
  if (now - shown_ < kRefreshSeconds && done < total_) return;
  shown_ = now;
  const std::string left = share > 0 ? FormatSeconds((now - start_) * (1 - share) / share) : "?";
  const int filled = static_cast<int>(share * kBarWidth);
  fmt::print(stderr, "\r{} [{:=<{}}{: <{}}] {:.0f}%  {}  ETA {}\033[K", what_, "", filled, "", kBarWidth - filled,
             100 * share, note, left);
  std::fflush(stderr);
}

std::string FormatSeconds(double seconds) {
  const auto whole = static_cast<int64_t>(std::ceil(seconds));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string FormatBytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace longspan
