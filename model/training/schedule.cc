#include "model/training/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace longspan {

double LearningRate(const OptimizerConfig& config, int64_t step, int64_t steps) {
  const double peak = config.learning_rate, last = peak * config.final_fraction;
  if (step < config.warmup_steps) {
    return peak * static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps + 1);
  }
  const bool stable = config.schedule == ScheduleKind::kWarmupStableDecay;
  const int64_t begin =
      stable ? steps - 1 - config.DecaySteps(steps) : config.warmup_steps;  // the last step at the peak
  const double progress = std::max(0.0, static_cast<double>(step - begin) / static_cast<double>(steps - 1 - begin));
  switch (config.schedule) {
    case ScheduleKind::kConstant:
      return peak;
    case ScheduleKind::kLinear:
    case ScheduleKind::kWarmupStableDecay:
      return peak + (last - peak) * progress;
    case ScheduleKind::kCosine:
      return last + (peak - last) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
  return peak;
}

}  // namespace longspan
