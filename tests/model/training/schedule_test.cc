// Learning-rate schedules at their corners.
#include "model/training/schedule.h"

#include <gtest/gtest.h>

namespace longspan {
namespace {

OptimizerConfig Config(ScheduleKind kind) {
  OptimizerConfig config;
  config.learning_rate = 1;
  config.schedule = kind;
  config.warmup_steps = 4;
  config.final_fraction = 0.1;
  config.decay_steps = 10;
  return config;
}

TEST(Schedule, WarmsUpLinearly) {
  for (const auto kind :
       {ScheduleKind::kConstant, ScheduleKind::kLinear, ScheduleKind::kCosine, ScheduleKind::kWarmupStableDecay}) {
    const OptimizerConfig config = Config(kind);
    for (int step = 0; step < 4; ++step) EXPECT_NEAR(LearningRate(config, step, 100), (step + 1) / 5.0, 1e-12);
    EXPECT_NEAR(LearningRate(config, 4, 100), 1, 1e-12);
  }
}

TEST(Schedule, EndsAtTheFinalFraction) {
  EXPECT_NEAR(LearningRate(Config(ScheduleKind::kConstant), 99, 100), 1, 1e-12);
  EXPECT_NEAR(LearningRate(Config(ScheduleKind::kLinear), 99, 100), 0.1, 1e-12);
  EXPECT_NEAR(LearningRate(Config(ScheduleKind::kCosine), 99, 100), 0.1, 1e-12);
  EXPECT_NEAR(LearningRate(Config(ScheduleKind::kWarmupStableDecay), 99, 100), 0.1, 1e-12);
}

TEST(Schedule, Middles) {
  // Decays run over steps 4..99; the middle is 51.5.
  EXPECT_NEAR(LearningRate(Config(ScheduleKind::kLinear), 51, 100), 1 - 0.9 * 47 / 95, 1e-12);
  const double cosine = LearningRate(Config(ScheduleKind::kCosine), 51, 100);
  EXPECT_NEAR(cosine, 0.55, 0.01);
  const OptimizerConfig stable = Config(ScheduleKind::kWarmupStableDecay);
  EXPECT_NEAR(LearningRate(stable, 89, 100), 1, 1e-12);
  EXPECT_NEAR(LearningRate(stable, 94, 100), 0.55, 1e-12);
}

TEST(Schedule, RunsShorterThanTheWarmUp) {
  for (const auto kind :
       {ScheduleKind::kConstant, ScheduleKind::kLinear, ScheduleKind::kCosine, ScheduleKind::kWarmupStableDecay}) {
    for (int step = 0; step < 3; ++step) {
      const double rate = LearningRate(Config(kind), step, 3);
      EXPECT_GT(rate, 0);
      EXPECT_LE(rate, 1);
    }
  }
}

}  // namespace
}  // namespace longspan
