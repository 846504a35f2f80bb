// Anomalies of training steps: how far a step's loss and gradient norm lie from those before it, and which updates were
// skipped for it. Every rank counts the same, from numbers that all have.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/train/run_log.h"
#include "model/training/optimizer.h"

namespace longspan {

// Scores of values against the last ones: (x - mean) / standard deviation.
class ZScores {
 public:
  static constexpr size_t kWindow = 128;  // values that count
  static constexpr size_t kLeast = 32;    // with fewer there is no score

  double Of(double x) const;  // NaN when there is none: x is not finite, values are too few, or all the same
  double At(double z) const;  // the value that has this score; infinity when there is none
  void Add(double x);         // what is not finite is left out

 private:
  friend class Anomalies;
  struct Moments {
    double mean, deviation;
    bool known;
  };
  Moments Measure() const;
  std::deque<double> values_;  // the oldest first
};

class Anomalies {
 public:
  explicit Anomalies(const TrainConfig& config) : config_(config) {}

  // Of the step to come, of this many labels: by train.max_z_score.
  UpdateLimits limits(double labels) const;
  // Takes note of the step; sets its loss_z and norm_z. `m.skipped` says whether its update was.
  void Record(StepMetrics* m);
  // The updates of train.max_bad_steps steps in a row were skipped.
  bool exhausted() const { return in_a_row_ >= config_.max_bad_steps; }
  // Throws Error (non-finite) if so, the last of them `m`.
  void Check(const StepMetrics& m) const;

  int64_t updates() const { return updates_; }    // made so far
  int64_t in_a_row() const { return in_a_row_; }  // skipped, up to the last step
  int64_t skipped() const { return skipped_; }

  // For a checkpoint: all of it as numbers, and back; a run that was exhausted begins a new row. Restore throws Error
  // (data) for what State does not return.
  std::vector<double> State() const;
  void Restore(std::span<const double> state);

 private:
  const TrainConfig& config_;
  int64_t updates_ = 0, skipped_ = 0;
  int64_t in_a_row_ = 0;
  ZScores loss_, norm_;
};

}  // namespace longspan
