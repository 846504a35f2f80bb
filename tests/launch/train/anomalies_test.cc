// Scores of losses and norms, the counts of skipped updates, and how they are kept.
#include "launch/train/anomalies.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/files.h"

namespace longspan {
namespace {

TEST(ZScores, AreStandardDeviationsOfTheLastValues) {
  ZScores scores;
  for (size_t i = 0; i < ZScores::kLeast; ++i) {
    EXPECT_TRUE(std::isnan(scores.Of(5)));
    EXPECT_EQ(scores.At(3), INFINITY);
    scores.Add(i % 2 == 0 ? 1 : 3);
    scores.Add(NAN);
    scores.Add(INFINITY);
  }
  EXPECT_DOUBLE_EQ(scores.Of(2), 0);
  EXPECT_DOUBLE_EQ(scores.Of(5), 3);
  EXPECT_DOUBLE_EQ(scores.At(3), 5);
  EXPECT_TRUE(std::isnan(scores.Of(NAN)));
  EXPECT_TRUE(std::isnan(scores.Of(INFINITY)));
  for (size_t i = 0; i < ZScores::kWindow; ++i) scores.Add(i % 2 == 0 ? 10 : 30);  // the old are forgotten
  EXPECT_DOUBLE_EQ(scores.Of(30), 1);
  for (size_t i = 0; i < ZScores::kWindow; ++i) scores.Add(7);
  EXPECT_TRUE(std::isnan(scores.Of(8)));
  EXPECT_EQ(scores.At(1), INFINITY);
}

StepMetrics Metrics(int64_t step, double loss, double norm, bool skipped) {
  StepMetrics m;
  m.step = step;
  m.labels = 10;
  m.loss = loss;
  m.grad_norm = norm;
  m.skipped = skipped;
  return m;
}

TEST(Anomalies, LimitsComeFromTheSteps) {
  TrainConfig config;
  Anomalies none(config);
  config.max_z_score = 4;
  Anomalies some(config);
  for (Anomalies* anomalies : {&none, &some}) {
    EXPECT_EQ(anomalies->limits(10).norm, INFINITY);
    for (int64_t step = 1; step <= 64; ++step) {
      StepMetrics m = Metrics(step, step % 2 == 0 ? 1 : 3, step % 2 == 0 ? 10 : 30, false);
      anomalies->Record(&m);
      EXPECT_EQ(std::isnan(m.loss_z), step <= 32);
      EXPECT_EQ(std::isnan(m.norm_z), step <= 32);
    }
  }
  config.max_z_score = 0;
  EXPECT_EQ(none.limits(10).norm, INFINITY);
  EXPECT_EQ(none.limits(10).loss, INFINITY);
  config.max_z_score = 4;
  EXPECT_DOUBLE_EQ(some.limits(10).norm, 60);
  EXPECT_DOUBLE_EQ(some.limits(10).loss, 60);  // of the sum over ten labels: 6 each
}

TEST(Anomalies, TooManyInARowEndTheRun) {
  TrainConfig config;
  config.max_bad_steps = 3;
  Anomalies anomalies(config);
  int64_t step = 0;
  const auto record = [&](bool skipped) {
    StepMetrics m = Metrics(++step, skipped ? NAN : 2, 1, skipped);
    anomalies.Record(&m);
    anomalies.Check(m);
  };
  for (const bool skipped : {true, true, false, true, true, false}) record(skipped);
  EXPECT_EQ(anomalies.skipped(), 4);
  EXPECT_EQ(anomalies.updates(), 2);
  record(true);
  record(true);
  ExpectError(ExitCode::kNonFinite, {"step 9", "loss nan", "3 steps in a row", "train.max_bad_steps", "step 6"},
              [&] { record(true); });
}

TEST(Anomalies, ComeBackFromTheirState) {
  TrainConfig config;
  config.max_z_score = 3;
  Anomalies anomalies(config), other(config);
  for (int64_t step = 1; step <= 200; ++step) {
    StepMetrics m = Metrics(step, std::sin(step), std::cos(step), step % 9 == 0);
    anomalies.Record(&m);
  }
  const std::vector<double> state = anomalies.State();
  other.Restore(state);
  EXPECT_EQ(other.State(), state);
  EXPECT_EQ(other.updates(), anomalies.updates());
  EXPECT_EQ(other.limits(7).loss, anomalies.limits(7).loss);
  EXPECT_EQ(other.limits(7).norm, anomalies.limits(7).norm);
  // A run that ended by them may skip as many again.
  for (int64_t step = 201; step <= 201 + config.max_bad_steps; ++step) {
    StepMetrics m = Metrics(step, NAN, NAN, true);
    anomalies.Record(&m);
  }
  EXPECT_TRUE(anomalies.exhausted());
  other.Restore(anomalies.State());
  EXPECT_FALSE(other.exhausted());
  EXPECT_EQ(other.skipped(), anomalies.skipped());
  for (const size_t size : {size_t{0}, size_t{3}, size_t{50}, state.size() - 1}) {
    ExpectError(ExitCode::kData, {"anomalies"}, [&] { other.Restore(std::span(state).first(size)); });
  }
  std::vector<double> wrong = state;
  wrong.push_back(0);
  ExpectError(ExitCode::kData, {"anomalies"}, [&] { other.Restore(wrong); });
  wrong = state;
  wrong[3] = 1e9;
  ExpectError(ExitCode::kData, {"anomalies"}, [&] { other.Restore(wrong); });
  wrong[3] = NAN;
  ExpectError(ExitCode::kData, {"anomalies"}, [&] { other.Restore(wrong); });
}

}  // namespace
}  // namespace longspan
