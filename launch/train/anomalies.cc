#include "launch/train/anomalies.h"

#include <cmath>

#include "runtime/error.h"

namespace longspan {

ZScores::Moments ZScores::Measure() const {
  if (values_.size() < kLeast) return {0, 0, false};
  const auto count = static_cast<double>(values_.size());
  double mean = 0, squares = 0;
  for (const double x : values_) mean += x / count;
  for (const double x : values_) squares += (x - mean) * (x - mean) / count;
  return {mean, std::sqrt(squares), squares > 0};
}

double ZScores::Of(double x) const {
  const Moments m = Measure();
  return m.known && std::isfinite(x) ? (x - m.mean) / m.deviation : NAN;
}

double ZScores::At(double z) const {
  const Moments m = Measure();
  return m.known ? m.mean + z * m.deviation : INFINITY;
}

void ZScores::Add(double x) {
  if (!std::isfinite(x)) return;
  if (values_.size() == kWindow) values_.pop_front();
  values_.push_back(x);
}

UpdateLimits Anomalies::limits(double labels) const {
  if (config_.max_z_score == 0) return {};
  return {.norm = norm_.At(config_.max_z_score), .loss = loss_.At(config_.max_z_score) * labels};
}

void Anomalies::Record(StepMetrics* m) {
  const bool learns = m->labels > 0;
  m->loss_z = learns ? loss_.Of(m->loss) : NAN;
  m->norm_z = learns ? norm_.Of(m->grad_norm) : NAN;
  // Outliers count as well: a new level is an outlier only for a while.
  if (learns) {
    loss_.Add(m->loss);
    norm_.Add(m->grad_norm);
  }
  in_a_row_ = m->skipped ? in_a_row_ + 1 : 0;
  ++(m->skipped ? skipped_ : updates_);
}

void Anomalies::Check(const StepMetrics& m) const {
  if (!exhausted()) return;
  Fail(
      ExitCode::kNonFinite,
      "step {}: loss {} and gradient norm {}: the updates of {} steps in a row were skipped (train.max_bad_steps), the "
      "parameters are those of step {}; lower optimizer.learning_rate, or lengthen optimizer.warmup_steps",
      m.step, m.loss, m.grad_norm, in_a_row_, m.step - in_a_row_);
}

std::vector<double> Anomalies::State() const {
  std::vector<double> state;
  for (const int64_t count : {updates_, skipped_, in_a_row_}) state.push_back(static_cast<double>(count));
  for (const ZScores* scores : {&loss_, &norm_}) {
    state.push_back(static_cast<double>(scores->values_.size()));
    state.insert(state.end(), scores->values_.begin(), scores->values_.end());
  }
  return state;
}

void Anomalies::Restore(std::span<const double> state) {
  size_t at = 0;
  const auto next = [&] {
    if (at == state.size()) Fail(ExitCode::kData, "the anomalies: expected more than {} numbers", state.size());
    return state[at++];
  };
  const auto whole = [&] {
    const double x = next();
    if (!(x >= 0 && x < 0x1p53 && x == std::floor(x))) {
      Fail(ExitCode::kData, "the anomalies: expected a count, found {}", x);
    }
    return static_cast<int64_t>(x);
  };
  for (int64_t* count : {&updates_, &skipped_, &in_a_row_}) *count = whole();
  for (ZScores* scores : {&loss_, &norm_}) {
    scores->values_.clear();
    for (int64_t left = whole(); left > 0; --left) scores->Add(next());
  }
  if (at != state.size()) Fail(ExitCode::kData, "the anomalies: expected {} numbers, found {}", at, state.size());
  if (exhausted()) in_a_row_ = 0;
}

}  // namespace longspan
