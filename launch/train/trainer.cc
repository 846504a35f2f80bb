#include "launch/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "launch/checkpoint/checkpoint.h"
#include "launch/config/config.h"
#include "launch/config/stages.h"
#include "launch/job/command_line.h"
#include "launch/job/job.h"
#include "launch/job/machine.h"
#include "launch/job/signals.h"
#include "launch/job/world.h"
#include "launch/report/recorder.h"
#include "launch/train/about.h"
#include "launch/train/announcement.h"
#include "launch/train/anomalies.h"
#include "launch/train/evaluation.h"
#include "launch/train/memory_fit.h"
#include "launch/train/open_data.h"
#include "launch/train/peak.h"
#include "launch/train/progress.h"
#include "launch/train/recording.h"
#include "launch/train/resume.h"
#include "launch/train/run_folder.h"
#include "launch/train/run_log.h"
#include "launch/train/selections.h"
#include "launch/train/step_gradients.h"
#include "launch/train/stopping.h"
#include "launch/train/training_step.h"
#include "launch/train/trials.h"
#include "model/network/session.h"
#include "model/training/optimizer.h"
#include "parallel/comm/texts.h"
#include "runtime/count.h"
#include "runtime/files/checksum.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

// What the trainers of one program, one a stage, go by.
struct Program {
  size_t stage = 0;  // the next trainer's
  bool first = true;
  double start = WallSeconds();
  std::optional<double> stage_ended;  // when the trainer before had trained its stage to the end
  double StartupSeconds() const { return stage_ended ? WallSeconds() - *stage_ended : ProcessSeconds(); }
};

class Trainer {
 public:
  // `whole` is the run, `config` as it is in the program's stage.
  Trainer(Job& job, DType dtype, const RunConfig& whole, const RunConfig& config, const Program& program,
          const TrainOptions& options)
      : job_(job),
        device_(job.device()),
        mesh_(job.mesh()),
        whole_(whole),
        stages_(StagesOf(whole)),
        stage_(program.stage),
        program_(program),
        config_(config),
        options_(options),
        folder_(config, options.older, job.root()),
        stopping_(job, config, folder_.path(), program.start, program.first),
        sources_(OpenData(
            config, mesh_.host_world(), [this] { return stopping_.wish() != 0; }, program.first)),
        session_(job.Make<Session>(config.session(), device_, mesh_.cp(), dtype)),
        optimizer_(job.Make<Optimizer>(Optimizer::Args{.device = session_.device(),
                                                       .ops = session_.ops(),
                                                       .compute = session_.compute(),
                                                       .comm = session_.comm(),
                                                       .world = mesh_.world(),
                                                       .params = session_.model().params(),
                                                       .config = config.optimizer})),
        anomalies_(config.train),
        record_step_(RecordStep(config.train, job.root())),
        log_(config, folder_.path(), job.root()),
        checkpoints_(job.Make<Checkpoints>(
            Checkpoints::Args{.world = mesh_.host_world(),
                              .device = device_,
                              .compute = session_.compute(),
                              .optimizer = optimizer_,
                              .config = whole,
                              .run = folder_.path(),
                              .memory = MemoryFolder(GatherTexts(mesh_.host_world(), folder_.id())[0]),
                              .node = NodeName(),
                              .about = AboutRun(whole, job, dtype, sources_, options.version),
                              .say = [this](const std::string& line) { log_.Line(line); },
                              .tokenizer = job.root() ? TokenizerModelOf(sources_) : ""})),
        gradients_(job, config, session_, optimizer_, sources_, stopping_, own().last_step),
        trials_(job, config, session_, gradients_, stopping_, log_),
        step_({.job = job,
               .config = config,
               .session = session_,
               .optimizer = optimizer_,
               .gradients = gradients_,
               .checkpoints = checkpoints_,
               .anomalies = anomalies_,
               .stopping = stopping_}) {
    job_.watchdog().SetFolder(folder_.path());
    optimizer_.Reserve(session_.arena(), session_.context().dtype, session_.context().gradient_dtype);
  }

  // Which goes on from the last save, after Run returned kOk; none after the last.
  std::optional<size_t> next_stage() const { return next_stage_; }
  bool trained() const { return begun_; }

  // Returns the exit code.
  ExitCode Run() {
    folder_.RequireShared(mesh_.host_world());
    const int64_t shared = checkpoints_.MemoryBytes();
    const std::vector<HostMemory> host = PlannedHostMemory(session_, optimizer_, config_, shared);
    log_.Line(Announcement(config_, StageText(), job_, session_, sources_, folder_.path(), options_.version, host));
    if (resumes() && !GoOn()) return ExitCode::kOk;
    RequireFit(job_, config_, {session_.arena().bytes(), SumOf(host), shared}, checkpoints_.memory());
    if (stopping_.Poll()) return Stop();  // the ranks measure together, as they will compute
    peak_flops_ =
        job_.Reduce(MeasurePeak(device_, session_.ops(), session_.compute(), session_.context().dtype), ReduceOp::kSum);
    session_.Start(config_.train.seed);
    optimizer_.Start(config_.train.seed);
    if (state_.step == 0) TakeInitialWeights(config_, session_, optimizer_, log_);
    checkpoints_.Reserve();
    if (!Rehearse()) return Stop();
    Begin();
    recorder_.emplace(RecorderArgs(job_, session_, config_, folder_.path(), resumes(),
                                   {.version = options_.version,
                                    .first_step = first_ + 1,
                                    .next_stage = program_.stage_ended.has_value(),
                                    .startup_seconds = program_.StartupSeconds(),
                                    .step_flops = step_flops_,
                                    .peak_flops = peak_flops_}));
    const double begin = WallSeconds();
    if (evaluation_due_) EvaluateHeldOut(first_);
    for (int64_t step = first_ + 1; step <= own().last_step && !stopping_.agreed(); ++step) {
      if (step == record_step_) {
        log_.Selection(step, RecordSelections(job_, session_, *sources_.train, config_, step));
      }
      trials_.BeforeStep(step, recorder_->InFull(step));
      const std::optional<StepMetrics> metrics = step_.Run(step, *recorder_);
      if (!metrics) break;
      log_.Step(*metrics);
      state_.step = step;
      state_.sequences += config_.train.sequences_per_step;
      // From before them: no update came of them.
      if (anomalies_.exhausted() && checkpoints_.Save(State())) checkpoints_.Forget();
      anomalies_.Check(*metrics);
      if (EvaluatesAfter(step)) EvaluateHeldOut(step);
      const Recorder::Stretch saving(*recorder_, RunPeriod::kCheckpoint, step);
      if (!stopping_.agreed()) checkpoints_.AfterStep(State());
    }
    if (stopping_.agreed()) return Stop();
    if (!last_stage()) return EndStage();
    {
      const Recorder::Stretch saving(*recorder_, RunPeriod::kCheckpoint, config_.train.steps);
      if (config_.checkpoint.at_end) checkpoints_.Save(State());  // where it resumed from memory after its last step
      checkpoints_.Finish();
      checkpoints_.Forget();
    }
    Finish(WallSeconds() - begin);
    return ExitCode::kOk;
  }

 private:
  bool resumes() const { return options_.older == OlderRun::kResume; }

  const Stage& own() const { return stages_[stage_]; }
  bool last_stage() const { return stage_ + 1 == stages_.size(); }
  // ", stage 1 of 3: steps 1 to 100"; "" where there is one.
  std::string StageText() const {
    if (stages_.size() == 1) return "";
    return fmt::format(", stage {} of {}: steps {} to {}", stage_ + 1, stages_.size(), own().first_step,
                       own().last_step);
  }

  // Saves it for the next, which goes on from there.
  ExitCode EndStage() {
    {
      const Recorder::Stretch saving(*recorder_, RunPeriod::kCheckpoint, state_.step);
      if (!checkpoints_.Save(State())) {
        Fail(ExitCode::kIo,
             "step {}: the end of stage {} must be saved, and could not be; --resume goes on from the save before",
             state_.step, stage_ + 1);
      }
      checkpoints_.Finish();
      checkpoints_.Forget();
    }
    if (stopping_.Poll()) return Stop();
    recorder_->Finish();
    log_.Line(fmt::format("stage {} of {} done after step {}", stage_ + 1, stages_.size(), state_.step));
    log_.Finish();
    next_stage_ = stage_ + 1;
    return ExitCode::kOk;
  }

  // Finds where; false when that is in another stage, or all is done.
  bool GoOn() {
    state_ = FindPlace(checkpoints_, whole_, own(), gradients_.loader(), log_);
    first_ = state_.step;
    if (const size_t stage = StageOfStep(stages_, first_ + 1); stage != stage_) {
      next_stage_ = stage;
      return false;
    }
    if (first_ == 0) return true;
    anomalies_.Restore(state_.numbers["anomalies"]);
    // One that a stop broke off is made up for.
    const bool missing = job_.root() && sources_.validation && first_ >= own().first_step && EvaluatesAfter(first_) &&
                         !log_.HoldsEvaluation(first_);
    evaluation_due_ = job_.Reduce(missing ? 1 : 0, ReduceOp::kMax) > 0;
    if (first_ < config_.train.steps || evaluation_due_ || !checkpoints_.found_on_disk()) return true;
    checkpoints_.Forget();
    log_.Line("done already; more train.steps would go on from here");
    return false;
  }

  bool EvaluatesAfter(int64_t step) const {
    return config_.train.evaluates() && (step == config_.train.steps || step % config_.train.eval_interval == 0);
  }

  // After the last step.
  const RunState& State() {
    state_.seconds = log_.Elapsed();
    trials_.SaveTo(&state_);
    state_.numbers["anomalies"] = anomalies_.State();
    return state_;
  }

  // The first step, but nothing is learned from it. Afterwards all that grows on first use has its size: the steps
  // allocate nothing, and what does not fit has failed. False when the run is to stop.
  bool Rehearse() {
    const StepGradients::Loaded first = gradients_.Load(state_.step + 1);
    if (stopping_.agreed()) return false;
    Trace::Get().Reset();
    if (state_.step >= own().first_step) trials_.GoOnAs(state_);
    gradients_.Add(first);
    session_.compute().Synchronize();
    if (stopping_.Poll()) return false;
    const double flops = TracedFlops();
    step_flops_ = job_.Reduce(flops, ReduceOp::kSum);
    step_.SetSpeed(step_flops_, peak_flops_);
    trials_.Begin(state_.step + 1, first, /*least_seconds=*/flops * mesh_.world().size() / peak_flops_);
    if (stopping_.agreed()) return false;
    optimizer_.Step(1, /*learning_rate=*/0);
    optimizer_.ZeroMoments();
    session_.compute().Synchronize();
    log_.Line(fmt::format("  in use after a rehearsal of the step: {} MiB, {} of them scratch of kernels and transfers",
                          job_.MemoryBytes() >> 20, CountedAllocations().scratch_bytes >> 20));
    return !stopping_.Poll();
  }

  // From here on the folder is this run's: what an older one left goes.
  void Begin() {
    if (job_.root()) folder_.Begin(ConfigText(whole_));
    checkpoints_.Load();
    begun_ = true;
    if (folder_.replaces()) log_.Line("  replaced   the older run in " + folder_.path());
    log_.Start({.version = options_.version,
                .ranks = mesh_.world().size(),
                .device = device_.name(),
                .dtype = DTypeName(session_.context().dtype),
                .parameters = session_.model().params().parameters(),
                .step_flops = step_flops_,
                .peak_flops = peak_flops_,
                .environment = job_.environment(),
                .resumes = resumes(),
                .after = state_.step,
                .seconds = state_.seconds,
                .startup_seconds = program_.StartupSeconds()});
  }

  void EvaluateHeldOut(int64_t step) {
    if (!sources_.validation || stopping_.agreed()) return;
    gradients_.LetLayersChoose();
    log_.Line(fmt::format("evaluating {} held-out sequences",
                          std::min(config_.train.eval_sequences, sources_.validation->size())));
    recorder_->Begin(RunPeriod::kEvaluation, step);
    const std::optional<HeldOut> found = Evaluate(job_, session_, *sources_.validation, config_, gradients_.loss_sum(),
                                                  [this] { return stopping_.Poll(); });
    recorder_->End(job_.MemoryBytes());
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

  // In good order: saves what was not, and says how to go on.
  ExitCode Stop() {
    const bool saved = !begun_ || state_.step == 0 || checkpoints_.Save(State());
    if (begun_ && saved) checkpoints_.Forget();
    if (recorder_) recorder_->Finish();
    if (state_.step > first_ && !stopping_.hurried()) Report();
    log_.Stop(state_.step, stopping_.reason());
    log_.Line(fmt::format("stopped by {} after step {}/{}{}; to go on:", stopping_.reason(), state_.step,
                          config_.train.steps, saved ? "" : ", which is not saved"));
    log_.Line(ResumeCommand(mesh_.world().size()));
    log_.Finish();
    return ExitCode::kStopped;
  }

  void Report() {
    mesh_.host_world().Barrier();  // all have written
    if (!job_.root() || config_.profile.level == ProfileDetail::kOff) return;
    try {
      log_.Line(options_.report(folder_.path()));
    } catch (const Error& error) {
      log_.Line(fmt::format("warning: no report: {}", error.what()));
    }
  }

  void Finish(double seconds) {
    recorder_->Finish();
    Report();
    const Tensor& weights = session_.model().params().weights();
    const auto bytes = session_.ToHost<uint8_t>(Tensor(weights.data, DType::kU8, weights.device, {weights.bytes()}));
    log_.Line(fmt::format("done: {} in {}, parameters {}, results in {}", Count(state_.step - first_, "step"),
                          FormatSeconds(seconds), ChecksumText(ChecksumOf(bytes.data(), std::ssize(bytes))),
                          folder_.path()));
    log_.Finish();
  }

  Job& job_;
  Device& device_;
  const Mesh& mesh_;
  const RunConfig& whole_;
  const std::vector<Stage> stages_;
  const size_t stage_;
  const Program& program_;
  std::optional<size_t> next_stage_;
  const RunConfig& config_;
  const TrainOptions& options_;
  RunFolder folder_;
  Stopping stopping_;
  const Sources sources_;
  Session& session_;
  Optimizer& optimizer_;                    // of the job, too: while this unwinds a save may still read it
  double step_flops_ = 0, peak_flops_ = 0;  // of all ranks; peak: a second
  Anomalies anomalies_;
  const int64_t record_step_;  // 0: none
  RunLog log_;
  RunState state_;     // of what is done
  int64_t first_ = 0;  // steps that were done before
  bool evaluation_due_ = false;
  bool begun_ = false;  // what was found is loaded, what an older run left is gone
  Checkpoints& checkpoints_;
  std::optional<Recorder> recorder_;  // from the first step on
  StepGradients gradients_;           // its graphs may hold transfers: not of the job
  Trials trials_;
  TrainingStep step_;
};

}  // namespace

int RunTrain(const RunConfig& config, const TrainOptions& options) {
  WatchStopSignals();
  const Machine machine = ChooseMachine(config.runtime);
  const std::vector<Stage> stages = StagesOf(config);
  TrainOptions now = options;
  Program program;
  if (options.older == OlderRun::kResume && stages.size() > 1) program.stage = LikelyStage(config, stages);
  for (;;) {
    const RunConfig own = AtStage(config, stages[program.stage]);
    Job job(machine.device, own.parallel, own.comm);
    Trainer trainer(job, machine.dtype, config, own, program, now);
    const ExitCode code = trainer.Run();
    const std::optional<size_t> next = trainer.next_stage();
    if (code != ExitCode::kOk || !next) return static_cast<int>(code);
    if (trainer.trained()) program.stage_ended = WallSeconds();
    program.stage = *next;
    program.first = false;
    now.older = OlderRun::kResume;
  }
}

}  // namespace longspan
