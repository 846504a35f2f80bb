#include "launch/train/training_step.h"

#include <cmath>

#include "launch/train/non_finite.h"
#include "launch/train/replicas.h"
#include "launch/train/selections.h"
#include "model/training/schedule.h"
#include "parallel/comm/recorder.h"
#include "runtime/memory.h"
#include "runtime/place.h"
#include "runtime/trace.h"

namespace longspan {

TrainingStep::TrainingStep(const Args& args)
    : job_(args.job),
      config_(args.config),
      session_(args.session),
      optimizer_(args.optimizer),
      gradients_(args.gradients),
      checkpoints_(args.checkpoints),
      anomalies_(args.anomalies),
      stopping_(args.stopping) {
  session_.arena().Reserve(&weights_hash_, MemoryUse::kWorkspace, "weights_hash", DType::kI64, {1});
}

void TrainingStep::SetSpeed(double step_flops, double peak_flops) {
  step_flops_ = step_flops;
  peak_flops_ = peak_flops;
}

std::optional<StepMetrics> TrainingStep::Run(int64_t step, Recorder& recorder) {
  const Mesh& mesh = job_.mesh();
  const double begin = WallSeconds();
  recorder.Begin(RunPeriod::kStep, step);
  FlightRecorder::Get().SetStep(step);
  const int64_t allocations = CountedAllocations().allocations;
  const StepGradients::Loaded loaded = gradients_.Load(step);
  if (stopping_.agreed()) return std::nullopt;
  const double coverage = gradients_.Add(loaded);
  StepMetrics metrics;
  metrics.learning_rate = LearningRate(config_.optimizer, step - 1, config_.train.steps);
  checkpoints_.BeforeUpdate();
  const int64_t interval = config_.train.compare_interval;
  const bool compares = interval > 0 && step % interval == 0;
  if (compares) session_.ops().train->Hash(session_.compute(), session_.model().params().weights(), weights_hash_);
  optimizer_.Step(anomalies_.updates() + 1, metrics.learning_rate, gradients_.loss_sum(),
                  anomalies_.limits(loaded.labels));

  // All is under way; from here on the host waits for results.
  recorder.UnderWay();
  const auto stage = InStage("metrics");
  metrics.step = step;
  metrics.selection = SelectionHashes(session_, mesh.cp());
  const std::vector<double> sums = session_.ToHost<double>(optimizer_.sums());
  metrics.grad_norm = std::sqrt(sums[0]);
  metrics.skipped = std::isnan(sums[2]);
  if (compares) RequireEqualReplicas(job_, step, session_.ToHost<int64_t>(weights_hash_)[0]);
  const int64_t memory = job_.MemoryBytes();
  const auto allocated = static_cast<double>(CountedAllocations().allocations - allocations);
  const std::vector<double> all = job_.Reduce({{session_.ToHost<double>(gradients_.loss_sum())[0], ReduceOp::kSum},
                                               {coverage, ReduceOp::kSum},
                                               {static_cast<double>(session_.model().borrowed_bytes()), ReduceOp::kSum},
                                               {static_cast<double>(memory), ReduceOp::kMax},
                                               {allocated, ReduceOp::kMax},
                                               {stopping_.wish(), ReduceOp::kMax},
                                               {recorder.wish(), ReduceOp::kMax}});
  stopping_.Agree(all[5]);
  metrics.loss = loaded.labels > 0 ? all[0] / loaded.labels : 0;
  metrics.labels = static_cast<int64_t>(loaded.labels);
  metrics.coverage = all[1] / mesh.world().size();
  metrics.borrowed_bytes = all[2] / mesh.world().size();
  metrics.memory_bytes = static_cast<int64_t>(all[3]);
  metrics.allocations = static_cast<int64_t>(all[4]);
  metrics.tokens = config_.train.sequences_per_step * config_.data.sequence_length;
  metrics.epochs = gradients_.loader().Epochs(step);
  metrics.seconds = WallSeconds() - begin;
  metrics.peak_share = step_flops_ / metrics.seconds / peak_flops_;
  anomalies_.Record(&metrics);
  recorder.End(memory);
  if (all[6] > 0) recorder.CompareAgain();
  const bool finite = std::isfinite(metrics.loss) && std::isfinite(metrics.grad_norm);
  if (metrics.skipped && !finite && anomalies_.in_a_row() == 1) metrics.cause = FindNonFinite(loaded);
  return metrics;
}

std::string TrainingStep::FindNonFinite(const StepGradients::Loaded& loaded) {
  gradients_.Add(loaded, /*reduce=*/false);
  const ParamTable& params = session_.model().params();
  const std::string found =
      NameNonFinite(job_, session_.compute(), params, session_.ToHost<double>(gradients_.loss_sum())[0]);
  session_.ops().rows->Zero(session_.compute(), params.gradients());
  return found;
}

}  // namespace longspan
