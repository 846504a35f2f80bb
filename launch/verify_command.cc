#include "launch/verify_command.h"

#include <algorithm>
#include <cmath>

#include "launch/batches.h"
#include "launch/data/random_source.h"
#include "launch/links.h"
#include "launch/session.h"
#include "parallel/mesh.h"

namespace longspan {
namespace {

constexpr double kTolerance = 1e-5;  // DESIGN.md section 5, fp32

double SumOfSquares(const Tensor& x) {
  double sum = 0;
  for (int64_t i = 0; i < x.size(); ++i) sum += std::pow(static_cast<double>(x.As<float>()[i]), 2);
  return sum;
}

// A session that has run one sequence forward and backward.
struct Run {
  Run(const RunConfig& config, Communicator& cp)
      : session(config, cp),
        source(config.data.sequence_length, config.model.vocab, config.model.nsa.select_block,
               config.data.document_masks) {
    session.Start(config.train.seed);
    BatchLoader loader(source, session.layout(), cp.rank(), config.model.nsa, config.data.seed);
    loader.Load(0, batch);
    session.Load(batch);
    session.model().ForwardBackward(session.inputs(), 1 / static_cast<double>(std::max<int64_t>(1, batch.labels)));
    session.compute().Synchronize();
  }
  Session session;
  RandomSource source;
  Batch batch;
};

// The token losses of the whole sequence, by position, on every rank of the group.
std::vector<float> GatherLosses(Run& run, Communicator& cp) {
  const Layout& layout = run.session.layout();
  std::vector<float> gathered(layout.sequence()), ordered(layout.sequence());
  cp.AllGather(run.session.comm(), run.session.model().token_loss(), HostView(gathered.data(), {layout.sequence()}));
  run.session.comm().Synchronize();
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    for (const Segment& segment : layout.segments(rank)) {
      std::copy_n(gathered.begin() + rank * layout.tokens() + segment.row, segment.length,
                  ordered.begin() + segment.begin);
    }
  }
  return ordered;
}

// Prints the comparison; returns what is wrong, "" for nothing.
std::string Compare(Run& alone, Run& parts, const std::vector<float>& losses) {
  const auto rows = CompareGradients(alone.session.model().params(), parts.session.model().params());
  fmt::print("  {:<44} {:>12} {:>12} {:>10}\n", "gradient of", "RMS cp=1", "RMS error", "ratio");
  for (const GradientRow& row : rows) {
    const bool good = row.ratio <= kTolerance;
    fmt::print("  {:<44} {:>12.4e} {:>12.4e} {:>10.2e}{}\n", row.name, row.reference, row.error, row.ratio,
               good ? "" : "  OFF");
  }
  const GradientRow& worst = WorstGradient(rows);
  const float* reference = alone.session.model().token_loss().As<float>();
  const auto differing = std::mismatch(losses.begin(), losses.end(), reference).first - losses.begin();
  const Tensor &a = alone.session.model().selection_hashes(), &b = parts.session.model().selection_hashes();
  std::string wrong;
  for (int64_t layer = 0; layer < a.size() && wrong.empty(); ++layer) {
    if (a.As<int64_t>()[layer] != b.As<int64_t>()[layer]) {
      wrong = fmt::format("layer {} selects other blocks at cp=P than at cp=1", layer);
    }
  }
  fmt::print("  selected blocks of every layer: {}\n", wrong.empty() ? "the same" : "DIFFERENT");
  const bool same_losses = differing == static_cast<int64_t>(losses.size());
  fmt::print("  loss of every token: {}\n", same_losses ? "the same, bit for bit" : "DIFFERENT");
  if (!(worst.ratio <= kTolerance)) {
    wrong = fmt::format("gradient of {}: expected an error ratio of at most {:.0e}, found {:.2e}", worst.name,
                        kTolerance, worst.ratio);
  } else if (wrong.empty() && !same_losses) {
    wrong = fmt::format("loss of token {}: expected {}, found {}", differing, reference[differing], losses[differing]);
  }
  return wrong;
}

}  // namespace

std::vector<GradientRow> CompareGradients(const ParamTable& reference, const ParamTable& found) {
  const double floor =
      1e-3 * std::sqrt(SumOfSquares(reference.gradients()) / static_cast<double>(reference.parameters()));
  std::vector<GradientRow> rows;
  for (size_t p = 0; p < reference.params().size(); ++p) {
    const Tensor &a = reference.params()[p]->gradient, &b = found.params()[p]->gradient;
    double error = 0;
    for (int64_t i = 0; i < a.size(); ++i) {
      error += std::pow(static_cast<double>(a.As<float>()[i]) - static_cast<double>(b.As<float>()[i]), 2);
    }
    const auto size = static_cast<double>(a.size());
    GradientRow row{reference.params()[p]->name, std::sqrt(SumOfSquares(a) / size), std::sqrt(error / size), 0};
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

int RunVerify(const VerifyOptions& options) {
  const RunConfig& config = options.config;
  if (config.parallel.cp == 1) {
    Fail(ExitCode::kConfig,
         "parallel.cp = 1: verify compares ranks that share a sequence with one; set it to 2 or more");
  }
  Mesh mesh(MakeMpiWorld(), config.parallel.dp, config.parallel.cp);
  Run parts(config, mesh.cp());
  Stream& stream = parts.session.comm();
  mesh.cp().AllReduce(stream, parts.session.model().params().gradients(), ReduceOp::kSum);
  mesh.cp().AllReduce(stream, parts.session.model().selection_hashes(), ReduceOp::kSum);
  const std::vector<float> losses = GatherLosses(parts, mesh.cp());

  // The first rank alone runs and compares; all end alike.
  const bool first = mesh.world().rank() == 0;
  int64_t wrong = 0;
  std::string what;
  if (first) {
    fmt::print("longspan verify: cp=1 against cp={}, {} tokens, {} parameters\n", mesh.cp_size(),
               config.data.sequence_length, parts.session.model().params().parameters());
    const auto self = MakeMpiSelf();
    Run alone(config, *self);
    what = Compare(alone, parts, losses);
    wrong = what.empty() ? 0 : 1;
  }
  const std::string links = MeasureLinks(mesh.world(), stream);
  if (first) fmt::print("{}{}\n", links, wrong != 0 ? "verify: OFF" : "verify: good");
  mesh.world().Broadcast(stream, HostView(&wrong, {1}), 0);
  stream.Synchronize();
  if (wrong != 0) Fail(ExitCode::kRankFailed, "verify: {}", first ? what : "see rank 0");
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace longspan
