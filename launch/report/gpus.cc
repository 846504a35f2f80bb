// What the GPUs of ranks did from the first step to the last, and which of them was throttled.
#include <algorithm>
#include <map>
#include <optional>

#include "launch/report/summary.h"

namespace longspan {
namespace {

// A GPU is throttled whose clocks are held down in so many of its readings, and lie so far below the median rank's:
// under load every GPU comes near its power limit now and then.
constexpr double kLeastHeld = 0.25, kMostOfUsual = 0.95;

}  // namespace

GpuRow GpuBetween(const RankProfile& rank, double begin, double end) {
  GpuRow row;
  row.rank = rank.rank;
  std::map<std::string, int64_t> held_by;
  std::optional<ProfileGpu> all;
  for (const ProfileGpu& gpu : rank.gpu.list) {
    if (gpu.last.at < begin || gpu.first.at > end) continue;
    if (all) {
      all->Add(gpu);
    } else {
      all = gpu;
    }
    if (gpu.held_readings > 0) held_by[GpuHeldBy(gpu.held)] += gpu.held_readings;
  }
  if (!all) return row;
  row.readings = all->readings;
  row.sm_clock = all->sm_clock;
  row.lowest = all->lowest;
  row.most_sm_clock = all->last.most_sm_clock;
  row.memory_clock = all->memory_clock;
  row.power = all->power;
  row.power_limit = all->last.power_limit;
  row.temperature = all->temperature;
  row.corrected = std::max(all->last.corrected, all->first.corrected) - all->first.corrected;
  row.uncorrected = std::max(all->last.uncorrected, all->first.uncorrected) - all->first.uncorrected;
  row.held = static_cast<double>(all->held_readings) / static_cast<double>(all->readings);
  int64_t most = 0;
  for (const auto& [why, readings] : held_by) {
    if (readings <= most) continue;
    most = readings;
    row.held_by = why;
  }
  return row;
}

void FindThrottling(const ProfileData& data, const StepTable& steps, size_t rank, size_t begin, size_t end,
                    Straggler* found) {
  std::vector<double> clocks;
  GpuRow own;
  for (size_t r = 0; r < data.ranks.size(); ++r) {
    const ProfilePeriod &first = *steps[r][begin], &last = *steps[r][end - 1];
    // Steps may be shorter than the time between two readings.
    const GpuRow gpu = GpuBetween(data.ranks[r], first.begin - kGpuReadingSeconds / 2,
                                  last.begin + last.seconds + kGpuReadingSeconds / 2);
    if (gpu.readings > 0) clocks.push_back(gpu.sm_clock);
    if (r == rank) own = gpu;
  }
  if (clocks.size() < 2) return;
  const auto median = clocks.begin() + std::ssize(clocks) / 2;  // the higher of two
  std::nth_element(clocks.begin(), median, clocks.end());
  const double usual = *median;
  if (own.held < kLeastHeld || own.sm_clock > kMostOfUsual * usual) return;
  found->what = SlowClass::kThrottled;
  found->held_by = own.held_by;
  found->sm_clock = own.sm_clock;
  found->usual_sm_clock = usual;
}

}  // namespace longspan
