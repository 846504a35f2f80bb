// TrainingStep: a step of training: gradients, update, and what the metrics say of it.
#pragma once

#include <optional>

#include "launch/checkpoint/checkpoint.h"
#include "launch/config/run_config.h"
#include "launch/job/job.h"
#include "launch/report/recorder.h"
#include "launch/train/anomalies.h"
#include "launch/train/run_log.h"
#include "launch/train/step_gradients.h"
#include "launch/train/stopping.h"
#include "model/network/session.h"
#include "model/training/optimizer.h"

namespace longspan {

class TrainingStep {
 public:
  struct Args {
    Job& job;
    const RunConfig& config;
    Session& session;
    Optimizer& optimizer;
    StepGradients& gradients;
    Checkpoints& checkpoints;
    Anomalies& anomalies;
    Stopping& stopping;
  };
  explicit TrainingStep(const Args& args);  // all outlive it; before the session's Start: reserves

  // For the share of peak: FLOPs of a step, and a second at best, of all ranks.
  void SetSpeed(double step_flops, double peak_flops);
  // Of all ranks. Nothing when the run is to stop before it. Throws Error (a rank failed) when the ranks' weights
  // differ. A period of the recorder.
  std::optional<StepMetrics> Run(int64_t step, Recorder& recorder);

 private:
  // Computes the step once more, its weights being the same, and says what in it is not finite.
  std::string FindNonFinite(const StepGradients::Loaded& loaded);

  Job& job_;
  const RunConfig& config_;
  Session& session_;
  Optimizer& optimizer_;
  StepGradients& gradients_;
  Checkpoints& checkpoints_;
  Anomalies& anomalies_;
  Stopping& stopping_;
  Tensor weights_hash_;  // [1] I64
  double step_flops_ = 0, peak_flops_ = 1;
};

}  // namespace longspan
