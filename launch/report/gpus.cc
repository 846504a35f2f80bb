// What the GPUs of ranks did from the first step to the last, and which of them was throttled.
#include <algorithm>
#include <map>

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
  const GpuReading* first = nullptr;
  for (const GpuReading& reading : rank.gpu) {
    if (reading.at < begin || reading.at > end) continue;
    if (!first) first = &reading;
    ++row.readings;
    row.sm_clock += reading.sm_clock;
    row.memory_clock += reading.memory_clock;
    row.power += reading.power;
    row.lowest = row.readings == 1 ? reading.sm_clock : std::min(row.lowest, reading.sm_clock);
    row.temperature = std::max(row.temperature, reading.temperature);
    row.most_sm_clock = reading.most_sm_clock;
    row.power_limit = reading.power_limit;
    row.corrected = std::max(reading.corrected, first->corrected) - first->corrected;
    row.uncorrected = std::max(reading.uncorrected, first->uncorrected) - first->uncorrected;
    if (const std::string why = GpuHeldBy(reading.held); !why.empty()) ++held_by[why];
  }
  const auto count = static_cast<double>(std::max<int64_t>(1, row.readings));
  for (double* sum : {&row.sm_clock, &row.memory_clock, &row.power}) *sum /= count;
  int64_t most = 0;
  for (const auto& [why, readings] : held_by) {
    row.held += static_cast<double>(readings) / count;
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
