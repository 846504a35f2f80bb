#include "launch/train/trainer.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cmath>

#include "launch/config/config.h"
#include "launch/data/dataset.h"
#include "launch/data/step_loader.h"
#include "launch/job/agreement.h"
#include "launch/job/command_line.h"
#include "launch/job/job.h"
#include "launch/job/machine.h"
#include "launch/job/signals.h"
#include "launch/report/profile.h"
#include "launch/train/announcement.h"
#include "launch/train/anomalies.h"
#include "launch/train/evaluation.h"
#include "launch/train/graphs.h"
#include "launch/train/memory_fit.h"
#include "launch/train/peak.h"
#include "launch/train/progress.h"
#include "launch/train/replicas.h"
#include "launch/train/run_folder.h"
#include "launch/train/run_log.h"
#include "launch/train/stopping.h"
#include "model/network/session.h"
#include "model/training/micro_step.h"
#include "model/training/optimizer.h"
#include "model/training/schedule.h"
#include "runtime/count.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

// What all ranks train on: the same data, with no token outside the vocabulary. Each looks at its part of them.
Sources OpenData(const RunConfig& config, Communicator& world, Stopping& stopping) {
  Sources sources = OpenSources(config.data, config.model.vocab, config.model.nsa.select_block);
  std::vector<Claim> claims;
  for (const auto& [key, dataset] : sources.files) {
    claims.push_back({key, dataset->Fingerprint(), dataset->path()});
  }
  RequireAgreement(world, ExitCode::kData, "the data", claims);
  CheckTokens(sources, config.model.vocab, world.rank(), world.size(), [&] { return stopping.wish() != 0; });
  return sources;
}

class Trainer {
 public:
  Trainer(Job& job, DType dtype, const RunConfig& config, const TrainOptions& options)
      : job_(job),
        device_(job.device()),
        mesh_(job.mesh()),
        config_(config),
        options_(options),
        folder_(config, options.overwrite, job.root()),
        stopping_(job, config, folder_.path()),
        sources_(OpenData(config, mesh_.host_world(), stopping_)),
        session_(job.Make<Session>(config.session(), device_, mesh_.cp(), dtype)),
        optimizer_({.device = session_.device(),
                    .ops = session_.ops(),
                    .compute = session_.compute(),
                    .comm = session_.comm(),
                    .world = mesh_.world(),
                    .params = session_.model().params(),
                    .config = config.optimizer}),
        steps_({*sources_.train, session_.layout(), mesh_.cp_index(), config.model.nsa, config.data.seed},
               config.train.steps, config.train.sequences_per_step, {mesh_.dp_index(), mesh_.dp_size()}),
        anomalies_(config.train),
        log_(config, folder_.path(), job.root()),
        micro_step_(session_, optimizer_, loss_sum_) {
    optimizer_.Reserve(session_.arena(), session_.context().dtype, session_.context().gradient_dtype);
    session_.arena().Reserve(&loss_sum_, MemoryUse::kWorkspace, "loss_sum", DType::kF64, {1});
    session_.arena().Reserve(&weights_hash_, MemoryUse::kWorkspace, "weights_hash", DType::kI64, {1});
  }

  // Returns the exit code.
  ExitCode Run() {
    log_.Line(Announcement(config_, job_, session_, sources_, folder_.path(), options_.version));
    RequireFit(job_, config_, {session_.arena().bytes(), session_.model().offloaded_bytes()});
    if (stopping_.Poll()) return Stop(0);  // the ranks measure together, as they will compute
    peak_flops_ =
        job_.Reduce(MeasurePeak(device_, session_.ops(), session_.compute(), session_.context().dtype), ReduceOp::kSum);
    session_.Start(config_.train.seed);
    optimizer_.Start(config_.train.seed);
    if (!Rehearse()) return Stop(0);
    Begin();
    Trace::Get().Reset();
    const double begin = WallSeconds();
    for (int64_t step = 1; step <= config_.train.steps; ++step) {
      const std::optional<StepMetrics> metrics = Step(step);
      if (!metrics) return Stop(WallSeconds() - begin);
      log_.Step(*metrics);
      anomalies_.Check(*metrics);
      done_ = step;
      if (config_.train.evaluates() && (step == config_.train.steps || step % config_.train.eval_interval == 0)) {
        EvaluateHeldOut(step);
      }
      if (stopping_.agreed()) return Stop(WallSeconds() - begin);
    }
    Finish(WallSeconds() - begin);
    return ExitCode::kOk;
  }

 private:
  struct LoadedStep {
    const std::vector<Batch>& batches;  // of this replica
    double labels;                      // over all replicas
  };

  // The first step, but nothing is learned from it. Afterwards all that grows on first use has its size: the steps
  // allocate nothing, and what does not fit has failed.
  // False when the run is to stop.
  bool Rehearse() {
    const LoadedStep first = LoadStep(1);
    if (stopping_.agreed()) return false;
    Trace::Get().Reset();
    AddGradients(first);
    session_.compute().Synchronize();
    if (stopping_.Poll()) return false;
    const double flops = TracedFlops();
    step_flops_ = job_.Reduce(flops, ReduceOp::kSum);
    const std::string graphs = ChooseGraphs(
        job_, config_, session_.compute(), micro_step_, [&] { AddGradients(first); },
        flops * mesh_.world().size() / peak_flops_);
    if (!graphs.empty()) log_.Line(graphs);
    optimizer_.Step(1, /*learning_rate=*/0);
    optimizer_.ZeroMoments();
    session_.compute().Synchronize();
    log_.Line(fmt::format("  in use after a rehearsal of the step: {} MiB, {} of them scratch of kernels and transfers",
                          job_.MemoryBytes() >> 20, CountedAllocations().scratch_bytes >> 20));
    return !stopping_.Poll();
  }

  // From here on the folder is this run's: what an older one left goes.
  void Begin() {
    if (job_.root()) folder_.Begin(ConfigText(config_));
    if (job_.root()) stopping_.Begin();
    if (folder_.replaces()) log_.Line("  replaced   the older run in " + folder_.path());
    log_.Start({.version = options_.version,
                .ranks = mesh_.world().size(),
                .device = device_.name(),
                .dtype = DTypeName(session_.context().dtype),
                .parameters = session_.model().params().parameters(),
                .step_flops = step_flops_,
                .peak_flops = peak_flops_});
  }

  // Nothing when the run is to stop before it.
  std::optional<StepMetrics> Step(int64_t step) {
    const double begin = WallSeconds();
    const int64_t allocations = CountedAllocations().allocations;
    const LoadedStep loaded = LoadStep(step);
    if (stopping_.agreed()) return std::nullopt;
    const double coverage = AddGradients(loaded);
    StepMetrics metrics;
    metrics.learning_rate = LearningRate(config_.optimizer, step - 1, config_.train.steps);
    const int64_t interval = config_.train.compare_interval;
    const bool compares = interval > 0 && step % interval == 0;
    if (compares) session_.ops().train->Hash(session_.compute(), session_.model().params().weights(), weights_hash_);
    optimizer_.Step(anomalies_.updates() + 1, metrics.learning_rate, loss_sum_, anomalies_.limits(loaded.labels));

    // All is under way; from here on the host waits for results.
    metrics.step = step;
    metrics.selection = SelectionHashes();
    const std::vector<double> sums = session_.ToHost<double>(optimizer_.sums());
    metrics.grad_norm = std::sqrt(sums[0]);
    metrics.skipped = std::isnan(sums[2]);
    if (compares) RequireEqualReplicas(job_, step, session_.ToHost<int64_t>(weights_hash_)[0]);
    const auto borrowed = static_cast<double>(session_.model().borrowed_bytes());
    const double allocated = static_cast<double>(CountedAllocations().allocations - allocations);
    const std::vector<double> all = job_.Reduce({{Value(loss_sum_), ReduceOp::kSum},
                                                 {coverage, ReduceOp::kSum},
                                                 {borrowed, ReduceOp::kSum},
                                                 {static_cast<double>(job_.MemoryBytes()), ReduceOp::kMax},
                                                 {allocated, ReduceOp::kMax},
                                                 {stopping_.wish(), ReduceOp::kMax}});
    stopping_.Agree(all[5]);
    metrics.loss = loaded.labels > 0 ? all[0] / loaded.labels : 0;
    metrics.labels = static_cast<int64_t>(loaded.labels);
    metrics.coverage = all[1] / mesh_.world().size();
    metrics.borrowed_bytes = all[2] / mesh_.world().size();
    metrics.memory_bytes = static_cast<int64_t>(all[3]);
    metrics.allocations = static_cast<int64_t>(all[4]);
    metrics.tokens = config_.train.sequences_per_step * config_.data.sequence_length;
    metrics.seconds = WallSeconds() - begin;
    metrics.peak_share = step_flops_ / metrics.seconds / peak_flops_;
    anomalies_.Record(&metrics);
    return metrics;
  }

  // Forward and backward of the step's sequences; returns the mean coverage.
  double AddGradients(const LoadedStep& step) {
    session_.compute().Synchronize();  // what was loaded before has left its page-locked memory
    session_.ops().rows->Zero(session_.compute(), loss_sum_);
    double coverage = 0;
    for (size_t micro = 0; micro < step.batches.size(); ++micro) {
      session_.Load(step.batches[micro], step.labels > 0 ? 1 / step.labels : 0, micro);
      micro_step_.Run(micro + 1 == step.batches.size());
      coverage += session_.model().coverage() / static_cast<double>(step.batches.size());
    }
    return coverage;
  }

  LoadedStep LoadStep(int64_t step) {
    const std::vector<Batch>& batches = steps_.Step(step);
    double labels = 0;
    for (const Batch& batch : batches) labels += static_cast<double>(batch.labels);
    const std::vector<double> all = job_.Reduce({{labels, ReduceOp::kSum}, {stopping_.wish(), ReduceOp::kMax}});
    stopping_.Agree(all[1]);
    return {batches, all[0] / mesh_.cp_size()};  // every rank of a cp group counts the same sequence
  }

  // Of the step's last sequence of replica 0, by layer.
  std::vector<uint64_t> SelectionHashes() {
    const Tensor& hashes = session_.model().selection_hashes();
    session_.compute().Synchronize();
    mesh_.cp().AllReduce(session_.comm(), hashes, ReduceOp::kSum);
    session_.comm().Synchronize();
    const std::vector<int64_t> values = session_.ToHost<int64_t>(hashes);
    return {values.begin(), values.end()};
  }

  void EvaluateHeldOut(int64_t step) {
    if (!sources_.validation || stopping_.agreed()) return;
    log_.Line(fmt::format("evaluating {} held-out sequences",
                          std::min(config_.train.eval_sequences, sources_.validation->size())));
    const std::optional<HeldOut> found = Evaluate(job_, session_, *sources_.validation, config_, loss_sum_, stopping_);
    if (!found) return;
    log_.Eval(step, found->loss, found->labels);
    if (!std::isfinite(found->loss)) {
      log_.Finish();
      Fail(ExitCode::kNonFinite,
           "step {}: held-out loss {} must be finite; lower optimizer.learning_rate, or lengthen "
           "optimizer.warmup_steps",
           step, found->loss);
    }
  }

  // In good order, and says how to go on.
  ExitCode Stop(double seconds) {
    if (done_ > 0 && !stopping_.hurried()) {
      log_.Line(WriteReport(mesh_.host_world(), mesh_.cp_size(), device_.kind(), folder_.path(), seconds, done_));
    }
    log_.Line(fmt::format("stopped by {} after step {}/{}", stopping_.reason(), done_, config_.train.steps));
    log_.Line(ResumeCommand(mesh_.world().size()));
    log_.Finish();
    return ExitCode::kStopped;
  }

  void Finish(double seconds) {
    log_.Line(
        WriteReport(mesh_.host_world(), mesh_.cp_size(), device_.kind(), folder_.path(), seconds, config_.train.steps));
    const Tensor& weights = session_.model().params().weights();
    const auto bytes = session_.ToHost<uint8_t>(Tensor(weights.data, DType::kU8, weights.device, {weights.bytes()}));
    log_.Line(fmt::format("done: {} in {}, parameters {:016x}, results in {}", Count(config_.train.steps, "step"),
                          FormatSeconds(seconds), XXH3_64bits(bytes.data(), bytes.size()), folder_.path()));
    log_.Finish();
  }

  double Value(const Tensor& scalar) { return session_.ToHost<double>(scalar)[0]; }

  Job& job_;
  Device& device_;
  const Mesh& mesh_;
  const RunConfig& config_;
  const TrainOptions& options_;
  RunFolder folder_;
  Stopping stopping_;
  const Sources sources_;
  Session& session_;
  Optimizer optimizer_;
  Tensor loss_sum_;                         // [1] F64
  Tensor weights_hash_;                     // [1] I64
  double step_flops_ = 0, peak_flops_ = 0;  // of all ranks; peak: a second
  StepLoader steps_;
  int64_t done_ = 0;  // the last step taken
  Anomalies anomalies_;
  RunLog log_;
  MicroStep micro_step_;  // its graphs may hold transfers: not of the job
};

}  // namespace

int RunTrain(const RunConfig& config, const TrainOptions& options) {
  WatchStopSignals();
  const Machine machine = ChooseMachine(config.runtime);
  Job job(machine.device, config.parallel);
  return static_cast<int>(Trainer(job, machine.dtype, config, options).Run());
}

}  // namespace longspan
