// `longspan verify`: before a long job, the same model and sequence on one rank and cut over the cp group.
#include "launch/commands/verify.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "launch/commands/command.h"
#include "launch/commands/configured.h"
#include "launch/commands/links.h"
#include "launch/data/batches.h"
#include "launch/data/dataset.h"
#include "launch/data/random_source.h"
#include "launch/job/agreement.h"
#include "launch/job/job.h"
#include "launch/job/machine.h"
#include "launch/job/world.h"
#include "launch/train/open_data.h"
#include "launch/train/selections.h"
#include "launch/version.h"
#include "model/network/session.h"
#include "parallel/comm/local_comm.h"
#include "parallel/comm/texts.h"
#include "parallel/exchange/sequence_rows.h"
#include "runtime/count.h"

namespace longspan {
namespace {

// Largest ratios of RMS error to RMS (DESIGN.md section 5).
struct Allowed {
  double gradient, loss;
};
constexpr Allowed kCpuAllowed{1e-5, 0};
Allowed GpuAllowed(DType dtype) { return dtype == DType::kBf16 ? Allowed{0.01, 0.01} : Allowed{1e-5, 1e-5}; }

// The sequence that is run, and the blocks that its layers are given, if any.
struct Input {
  explicit Input(const RunConfig& config) {
    if (config.train.frozen_selection.empty()) {
      source = std::make_unique<RandomSource>(config.data.sequence_length, config.model.vocab,
                                              config.model.nsa.select_block, config.data.document_masks);
      sequence = ShuffledOrder(source->size(), config.data.seed, 0)[0];
      return;
    }
    const GivenSelections given(config);
    Sources sources = OpenSources(config.data, config.model.vocab, config.model.nsa.select_block);
    claims = ClaimsOf(sources);
    claims.push_back(given.claim());
    source = std::move(sources.train);
    sequence = given.sequences().front();
    given.Check(*source, sequence);
    selections = given.Of(sequence);
  }

  std::vector<Claim> claims;  // of the files that it is from
  std::unique_ptr<SequenceSource> source;
  int64_t sequence = 0;
  Selections selections;  // empty: free
};

// A session that runs one sequence forward and backward.
struct SequencePass {
  // `given`: what to choose instead of the own choice; empty is free. All outlive the run.
  SequencePass(const RunConfig& config, const Input& input, const Selections& given, Device& device, Communicator& cp,
               DType dtype)
      : config(config), input(input), given(given), session(config.session(), device, cp, dtype) {
    if (!given.empty()) frozen.emplace(session, config.model);
  }

  void Step() {
    session.Start(config.train.seed);
    if (frozen) frozen->Set(given);
    ObserveSelections(session, config.model, &chosen);
    BatchLoader loader(*input.source, session.layout(), session.context().cp.rank(), config.model.nsa,
                       config.data.seed);
    loader.LoadSequence(input.sequence, batch);
    session.Load(batch, 1 / static_cast<double>(std::max<int64_t>(1, batch.labels)));
    session.model().ForwardBackward(session.inputs());
    session.compute().Synchronize();
  }

  const ParamTable& params() { return session.model().params(); }

  const RunConfig& config;
  const Input& input;
  const Selections& given;
  Selections chosen;
  Session session;
  Batch batch;
  std::optional<FrozenSelection> frozen;
};

// What the first rank compares: of the whole sequence, sums over its ranks.
struct Outcome {
  std::vector<float> losses;     // [S]
  std::vector<float> gradients;  // a flat buffer of the parameter table
  std::vector<int64_t> hashes;   // of each layer's selection
};

// Collective; complete on the first rank.
Outcome OutcomeOf(SequencePass& run, Communicator& cp) {
  Session& session = run.session;
  for (const Tensor& sum : {run.params().gradients(), session.model().selection_hashes()}) {
    cp.AllReduce(session.comm(), sum, ReduceOp::kSum);
  }
  session.comm().Synchronize();
  const int64_t length = session.layout().sequence();
  const Context& context = session.context();
  const SequenceRows rows = {context.device, context.compute, context.comm, cp, context.layout, length};
  Outcome outcome{std::vector<float>(length), session.ToHost<float>(run.params().gradients()),
                  session.ToHost<int64_t>(session.model().selection_hashes())};
  rows.Gather(session.model().token_loss(), HostView(outcome.losses.data(), {length}));
  return outcome;
}

double Rms(std::span<const float> values) {
  double sum = 0;
  for (float x : values) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum / static_cast<double>(std::max<size_t>(1, values.size())));
}

double RmsError(std::span<const float> a, std::span<const float> b) {
  std::vector<float> difference(a.size());
  for (size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return Rms(difference);
}

// Prints the comparison; returns what is wrong, "" for nothing.
std::string Compare(const ParamTable& params, const Outcome& alone, const Outcome& parts, const Allowed& allowed) {
  const auto rows = CompareGradients(params, alone.gradients, parts.gradients);
  fmt::print("  {:<44} {:>12} {:>12} {:>10}\n", "gradient of", "RMS cp=1", "RMS error", "ratio");
  for (const GradientRow& row : rows) {
    const bool good = row.ratio <= allowed.gradient;
    fmt::print("  {:<44} {:>12.4e} {:>12.4e} {:>10.2e}{}\n", row.name, row.reference, row.error, row.ratio,
               good ? "" : "  OFF");
  }
  const GradientRow& worst = WorstGradient(rows);
  std::string wrong;
  for (size_t layer = 0; layer < alone.hashes.size() && wrong.empty(); ++layer) {
    if (alone.hashes[layer] != parts.hashes[layer]) {
      wrong = fmt::format("layer {} selects other blocks at cp=P than at cp=1", layer);
    }
  }
  fmt::print("  selected blocks of every layer: {}\n", wrong.empty() ? "the same" : "DIFFERENT");
  const double loss_error = RmsError(alone.losses, parts.losses) / Rms(alone.losses);
  const bool good_losses = loss_error <= allowed.loss;
  fmt::print("  losses of the tokens: RMS error ratio {:.2e}{}\n", loss_error, good_losses ? "" : "  OFF");
  if (!(worst.ratio <= allowed.gradient)) {
    wrong = fmt::format("gradient of {}: expected an error ratio of at most {:.0e}, found {:.2e}", worst.name,
                        allowed.gradient, worst.ratio);
  } else if (wrong.empty() && !good_losses) {
    wrong = fmt::format("losses of the tokens: expected an error ratio of at most {:.0e}, found {:.2e}", allowed.loss,
                        loss_error);
  }
  return wrong;
}

struct LinkOptions {
  bool only = false;  // no gradients
  std::string json;   // a file to write
};

// Measures the links and checks the collectives over all ranks and each of their groups, prints both, and returns what
// is wrong. Collective.
std::string VerifyLinks(Job& job, Stream& stream, const std::string& json) {
  const Mesh& mesh = job.mesh();
  LinkReport found = MeasureLinks(job, stream);
  found.version = Version();
  found.transport = job.device().kind() == DeviceKind::kCpu ? MpiVersion() : mesh.world().transport();
  std::string wrong;
  std::vector<Communicator*> groups = {&mesh.world()};
  for (Communicator* const group : {&mesh.cp(), &mesh.dp()}) {
    if (group != groups[0]) groups.push_back(group);
  }
  for (Communicator* const group : groups) {
    const CollectiveCheck check = CheckCollectives(*group, job.device(), stream);
    found.collective_calls += check.calls;
    if (wrong.empty() && !check.wrong.empty())
      wrong = fmt::format("rank {}: {}", mesh.host_world().rank(), check.wrong);
  }
  for (const std::string& text : GatherTexts(mesh.host_world(), wrong)) {
    if (found.wrong.empty()) found.wrong = text;
  }
  if (job.root()) {
    fmt::print("{}  collectives: {} results, {}\n", LinkTable(found), found.collective_calls,
               found.wrong.empty() ? "all exact" : "WRONG: " + found.wrong);
    if (!json.empty()) WriteLinkReport(json, found);
  }
  return found.wrong;
}

// Ends the command: all ranks alike, `wrong` being known to rank 0 at least.
int Judge(Job& job, const std::string& wrong) {
  if (job.root()) fmt::print("{}\n", wrong.empty() ? "verify: good" : "verify: OFF");
  if (job.Reduce(wrong.empty() ? 0 : 1, ReduceOp::kMax) != 0) {
    Fail(ExitCode::kRankFailed, "verify: {}", job.root() ? wrong : "see rank 0");
  }
  return static_cast<int>(ExitCode::kOk);
}

int RunLinks(const RunConfig& config, const LinkOptions& options) {
  Job job(ChooseMachine(config.runtime).device, config.parallel, config.comm);
  if (job.root()) {
    fmt::print("longspan verify: links of {} = dp {} x cp {} on {}\n", Count(job.mesh().world().size(), "rank"),
               job.mesh().dp_size(), job.mesh().cp_size(), job.device().name());
    fmt::print("{}", job.placement());
  }
  struct Made {
    explicit Made(Device& device) : stream(device.MakeStream("comm")) {}
    std::unique_ptr<Stream> stream;
  };
  return Judge(job, VerifyLinks(job, *job.Make<Made>(job.device()).stream, options.json));
}

// Runs one random sequence with uneven documents (with train.frozen_selection the first that it is of, with its blocks)
// at cp=1 and at cp=P, prints a table of errors and the speed of the links. One rank holds the whole sequence: lower
// data.sequence_length where that does not fit. Throws Error (rank failed) naming the worst parameter when one is off
// by more than 1e-5 (BF16: 0.01), or when the losses are: on a CPU not one bit of a loss or a selection may differ; on
// a GPU cp=1 is given the selection of cp=P; (configuration) when parallel.cp is 1, as there is nothing to compare.
int RunVerify(const RunConfig& config, const LinkOptions& options) {
  if (config.parallel.cp == 1) {
    Fail(ExitCode::kConfig,
         "parallel.cp = 1: verify compares ranks that share a sequence with one; set it to 2 or more");
  }
  const Machine machine = ChooseMachine(config.runtime);
  const Input input(config);
  Job job(machine.device, config.parallel, config.comm);
  RequireAgreement(job.mesh().host_world(), ExitCode::kData, "the data", input.claims);
  Device& device = job.device();
  const bool gpu = machine.device == DeviceKind::kGpu;
  SequencePass& run = job.Make<SequencePass>(config, input, input.selections, device, job.mesh().cp(), machine.dtype);
  run.Step();
  const Outcome parts = OutcomeOf(run, job.mesh().cp());

  // The first rank alone runs and compares; all end alike.
  std::string wrong;
  if (job.root()) {
    fmt::print("longspan verify: cp=1 against cp={} on {}, {}; {} tokens, {} parameters\n", job.mesh().cp_size(),
               device.name(), DTypeName(machine.dtype), config.data.sequence_length, run.params().parameters());
    if (config.parallel.selected_exchange == SelectedExchange::kAuto) {
      fmt::print("  exchange   as GATHER; parallel.selected_exchange=FETCH compares the other that AUTO may take\n");
    }
    const auto self = MakeLocalCommunicator(device);
    // A CPU's losses and choices have the same bits; on a GPU a near tie may turn over, so the choice is given there.
    SequencePass alone(config, input, gpu ? run.chosen : input.selections, device, *self, machine.dtype);
    alone.Step();
    wrong = Compare(run.params(), OutcomeOf(alone, *self), parts, gpu ? GpuAllowed(machine.dtype) : kCpuAllowed);
  }
  const std::string links = VerifyLinks(job, run.session.comm(), options.json);
  return Judge(job, wrong.empty() ? links : wrong);
}

std::function<int()> AddVerify(CLI::App& app) {
  const auto options = std::make_shared<LinkOptions>();
  app.add_flag("--links", options->only,
               "Only measure the links and check the collectives; no key but parallel.* and "
               "runtime.* matters");
  app.add_option("--json", options->json, "Write what was found of the links to this file")->type_name("FILE");
  return AddConfigured(
      app,
      [options](const RunConfig& config) {
        return options->only ? RunLinks(config, *options) : RunVerify(config, *options);
      },
      nullptr, [options] { return options->only; });
}

}  // namespace

extern const Command kVerify = {"verify", "Compare gradients on one rank and on many, before a long job", R"(
Compares the gradient of every parameter on one rank with that on parallel.cp ranks, and fails when one is off. Then, or
with --links alone, latency and bandwidth between every pair of ranks and around the rings of their groups, naming links
far slower than others of their kind; and every collective on numbers whose sums are exact: it fails when one is wrong.

Examples:
  mpirun -np 4 longspan verify --config configs/quickstart.textproto parallel.cp=4 parallel.dp=1
  mpirun -np 2 longspan verify --config configs/fibonacci.textproto parallel.cp=2 parallel.selected_exchange=FETCH
  mpirun -np 16 --hostfile hosts longspan verify --links --json links.json)",
                                AddVerify};

std::vector<GradientRow> CompareGradients(const ParamTable& params, std::span<const float> reference,
                                          std::span<const float> found) {
  double squares = 0;  // the gaps between parameters hold zeros
  for (float x : reference) squares += static_cast<double>(x) * static_cast<double>(x);
  const double floor = 1e-3 * std::sqrt(squares / static_cast<double>(params.parameters()));
  std::vector<GradientRow> rows;
  for (const auto& param : params.params()) {
    const auto a = reference.subspan(param->offset, param->size()), b = found.subspan(param->offset, param->size());
    GradientRow row{param->name, Rms(a), RmsError(a, b), 0};
    const double scale = std::max(row.reference, floor);
    row.ratio = scale > 0 ? row.error / scale : row.error;
    rows.push_back(row);
  }
  return rows;
}

const GradientRow& WorstGradient(const std::vector<GradientRow>& rows) {
  return *std::max_element(rows.begin(), rows.end(), [](const GradientRow& a, const GradientRow& b) {
    return !std::isnan(a.ratio) && (std::isnan(b.ratio) || a.ratio < b.ratio);
  });
}

}  // namespace longspan
