// `longspan eval`.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/weights.h"
#include "launch/commands/command.h"
#include "launch/commands/configured.h"
#include "launch/commands/eval_retrieval.h"
#include "launch/commands/option_values.h"
#include "launch/commands/saved.h"
#include "launch/job/machine.h"
#include "launch/job/world.h"
#include "launch/report/eval_report.h"
#include "launch/train/evaluation.h"
#include "launch/train/memory_fit.h"
#include "launch/train/open_data.h"
#include "launch/train/position_losses.h"
#include "launch/train/progress.h"
#include "runtime/error.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLongestDocument = int64_t{1} << 40;

struct EvalOptions {
  std::string json;
  RetrievalPlan retrieval = {.lengths = {}, .pairs = {1, 8}};
};

// By default a sequence, a half and a quarter of it.
RetrievalPlan Settled(RetrievalPlan plan, int64_t sequence) {
  if (plan.lengths.empty()) {
    const int64_t least = (*std::max_element(plan.pairs.begin(), plan.pairs.end()) + 1) * kPairTokens;
    for (const int64_t length : {sequence / 4, sequence / 2, sequence}) {
      if (length >= least || length == sequence) plan.lengths.push_back(length);
    }
  }
  for (std::vector<int64_t>* values : {&plan.lengths, &plan.pairs}) {
    std::sort(values->begin(), values->end());
    values->erase(std::unique(values->begin(), values->end()), values->end());
  }
  CheckRetrieval(plan, sequence);
  return plan;
}

// The root says how far it is.
class Said {
 public:
  Said(bool root, const std::string& what, int64_t total) : total_(total) {
    if (root) progress_.emplace(what, total);
  }
  void Update(int64_t done) {
    if (progress_) progress_->Update(done, fmt::format("{}/{} sequences", done, total_));
  }

 private:
  const int64_t total_;
  std::optional<Progress> progress_;
};

class Evaluator {
 public:
  Evaluator(const RunConfig& config, CheckpointReader& checkpoint, const EvalOptions& options)
      : config_(config),
        plan_(Settled(options.retrieval, config.data.sequence_length)),
        machine_(ChooseMachine(config.runtime)),
        job_(machine_.device, config.parallel),
        sources_(OpenData(config, job_.mesh().host_world())),
        session_(job_.Make<Session>(config.session(), job_.device(), job_.mesh().cp(), machine_.dtype)) {
    RequireItsTokenizer(checkpoint, sources_);
    session_.arena().Reserve(&loss_sum_, MemoryUse::kWorkspace, "loss_sum", DType::kF64, {1});
    RequireFit(job_, config, {.device = session_.arena().bytes()}, "");
    session_.Start(config.train.seed);
    LoadWeights(checkpoint, session_.device(), session_.compute(), session_.model().params());
  }

  EvalReport Run(const CheckpointReader& checkpoint) {
    EvalReport report;
    report.checkpoint = checkpoint.path();
    report.step = checkpoint.manifest().state.step;
    report.device = job_.device().name();
    report.dtype = DTypeName(machine_.dtype);
    MeasureLoss(&report);
    if (plan_.trials > 0) MeasureRetrieval(&report);
    return report;
  }
  bool root() const { return job_.root(); }

 private:
  void MeasureLoss(EvalReport* report) {
    if (!sources_.validation) {
      Fail(ExitCode::kConfig, "data.validation: the run has nothing held out; name a dataset");
    }
    if (config_.train.eval_sequences == 0) Fail(ExitCode::kConfig, "train.eval_sequences = 0: expected 1 or more");
    report->sequences = std::min(config_.train.eval_sequences, sources_.validation->size());
    report->sequence_length = config_.data.sequence_length;
    Said said(job_.root(), "held-out loss", report->sequences);
    PositionLosses positions(config_.data.sequence_length);
    const std::vector<SequenceSource::Part> parts = sources_.validation->parts();
    std::vector<Job::Number> of_parts(2 * parts.size(), {0, ReduceOp::kSum});  // losses, labels, of each
    int64_t done = 0;
    const auto found = Evaluate(
        job_, session_, *sources_.validation, config_, loss_sum_, [] { return false; },
        [&](const Batch& part) {
          const auto [sum, labels] = positions.Add(part, session_.ToHost<double>(session_.model().token_loss()));
          size_t dataset = 0;
          while (part.number >= parts[dataset].first + parts[dataset].size) ++dataset;
          of_parts[2 * dataset].value += sum;
          of_parts[2 * dataset + 1].value += static_cast<double>(labels);
          done += job_.mesh().dp_size();
          said.Update(std::min(done, report->sequences));
        });
    report->loss = {found->loss * static_cast<double>(found->labels), found->labels};
    for (const PositionBucket& bucket : positions.Sum(job_)) {
      report->positions.push_back({bucket.begin, bucket.end, {bucket.loss_sum, bucket.labels}});
    }
    const std::vector<double> sums = job_.Reduce(of_parts);
    for (size_t i = 0; i < parts.size() && parts.size() > 1; ++i) {
      report->datasets.push_back({parts[i].name, {sums[2 * i], static_cast<int64_t>(sums[2 * i + 1])}});
    }
  }

  void MeasureRetrieval(EvalReport* report) {
    std::optional<Said> said;
    const RetrievalDocuments documents = config_.data.format == DataFormat::kRetrieval
                                             ? RetrievalDocuments(config_.model.vocab)
                                             : RetrievalDocuments(*sources_.validation);
    report->retrieval = EvaluateRetrieval(job_, session_, config_, documents, plan_, [&](int64_t done, int64_t total) {
      if (!said) said.emplace(job_.root(), "retrieval", total);
      said->Update(done);
    });
  }

  const RunConfig& config_;
  const RetrievalPlan plan_;
  const Machine machine_;
  Job job_;
  const Sources sources_;
  Session& session_;
  Tensor loss_sum_;
};

// Where the run's report shows it; somebody else's folder may not be written to.
void LeaveInRun(const std::string& run, const EvalReport& report) {
  try {
    WriteEvalJson(run + "/eval.json", report);
  } catch (const Error& error) {
    fmt::print(stderr, "warning: {}\n", error.what());
  }
}

int Eval(const GivenCheckpoint& given, const EvalOptions& options) {
  CheckpointReader checkpoint(NewestCheckpoint(given.path));
  const RunConfig saved =
      SavedConfig(checkpoint, given.overrides, std::max(1, AskLauncher().ranks), /*reads_data=*/true);
  return RunOnRanks("eval " + checkpoint.manifest().time, saved, [&](const RunConfig& config) {
    Evaluator evaluator(config, checkpoint, options);
    const EvalReport report = evaluator.Run(checkpoint);
    if (!evaluator.root()) return 0;
    fmt::print("{}", EvalText(report));
    if (!options.json.empty()) WriteEvalJson(options.json, report);
    if (fs::is_directory(given.path + "/checkpoints")) LeaveInRun(given.path, report);
    return 0;
  });
}

std::function<int()> AddEval(CLI::App& app) {
  const auto given = AddCheckpointAndKeys(app);
  const auto options = std::make_shared<EvalOptions>();
  app.add_option("--json", options->json, "Where all numbers go (launch/report/eval_report.h)")->type_name("FILE");
  app.add_option("--retrieval", options->retrieval.trials, "Documents of each length, depth and number of pairs")
      ->transform(WholeNumber(0, 1 << 20))
      ->type_name("N");
  app.add_option("--lengths", options->retrieval.lengths,
                 "Their tokens (default: a sequence, a half and a quarter of it)")
      ->delimiter(',')
      ->transform(WholeNumber(1, kLongestDocument))
      ->type_name("L,...")
      ->needs("--retrieval");
  app.add_option("--pairs", options->retrieval.pairs, "Pairs of a key and a value in a document (default: 1,8)")
      ->delimiter(',')
      ->transform(WholeNumber(1, 1 << 16))
      ->type_name("P,...")
      ->needs("--retrieval");
  app.add_option("--depths", options->retrieval.depths, "Depths from a document's beginning to its end")
      ->transform(WholeNumber(1, 1000))
      ->type_name("N")
      ->capture_default_str()
      ->needs("--retrieval");
  return [given, options] { return Eval(*given, *options); };
}

}  // namespace

extern const Command kEval = {"eval", "Measure a saved model on held-out data", R"(
The loss over train.eval_sequences held-out sequences, which is what train says of the same checkpoint, overall and by the
position of a token in its document: where more context helps, it falls. Keys choose others: data.validation,
train.eval_sequences, data.sequence_length, runtime.device, parallel.cp. The numbers are the same on any ranks, up to
rounding. Given a run's folder it leaves them in eval.json there, of which longspan report --html shows the loss by position.

--retrieval asks for one thing in a long document, by its length and the depth at which it lies: pairs of a key and a value
(four tokens each) lie in a haystack, the document ends with one of the keys, and the value must be the model's first
choice. One pair is a needle in a haystack. The haystack is held-out text, keys and values are random tokens of it (of a
model trained with data.format RETRIEVAL: that task's).

Examples:
  longspan eval runs/quickstart
  mpirun -np 4 longspan eval runs/quickstart train.eval_sequences=64 --json eval.json
  longspan eval runs/needle --retrieval 20 --lengths 4096,16384 --pairs 1,4,16)",
                              AddEval};

}  // namespace longspan
