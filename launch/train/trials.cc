#include "launch/train/trials.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr double kFetchPays = 0.97, kGraphsPay = 0.98;  // of the time without
constexpr double kLongPassSeconds = 0.5;                // beside which launches are nothing, and which is tried once
// Of steps that are graphs, every so many one is enqueued, or more seldom where that would cost a larger part.
constexpr int64_t kShownEvery = 16;
constexpr double kShownCost = 0.01;
// In the saved state, where it is left open: whether selected rows are fetched, and by how many ranks of how large a
// cp.
constexpr const char* kFetches = "fetches";

bool TriesAfter(int64_t steps) {
  while (steps > 10 && steps % 10 == 0) steps /= 10;
  return steps == 10;
}

}  // namespace

Trials::Trials(Job& job, const RunConfig& config, Session& session, StepGradients& gradients, Stopping& stopping,
               RunLog& log)
    : job_(job),
      config_(config),
      session_(session),
      gradients_(gradients),
      stopping_(stopping),
      log_(log),
      shown_every_(kShownEvery) {}

void Trials::GoOnAs(const RunState& state) {
  graphs_ = state.graphs;
  const auto found = state.numbers.find(kFetches);
  if (!exchange_is_open() || found == state.numbers.end()) return;
  for (const bool fetches : {false, true}) {
    if (found->second == Exchange(fetches)) fetches_ = fetches;
  }
  if (fetches_ == true) session_.model().SetExchange(SelectedExchange::kFetch);
}

void Trials::SaveTo(RunState* state) const {
  state->graphs = gradients_.micro_step().uses_graphs();
  if (exchange_is_open()) state->numbers[kFetches] = Exchange(session_.model().fetches());
}

void Trials::Begin(int64_t step, const StepGradients::Loaded& loaded, double least_seconds) {
  least_seconds_ = least_seconds;
  if (exchange_is_open() && !fetches_) {
    graphs_.reset();  // they were those of another exchange
    return TryExchanges(step, loaded);
  }
  Say(TryGraphs(loaded));
  graphs_.reset();
  if (fetches_) Say(fmt::format("  exchange   as the checkpoint says: {}", *fetches_ ? "FETCH" : "GATHER"));
}

void Trials::BeforeStep(int64_t step, bool in_full) {
  MicroStep& micro_step = gradients_.micro_step();
  if (exchange_is_open() && TriesAfter(step - 1) && step != tried_) {
    micro_step.ShowSpans(false);
    const StepGradients::Loaded next = gradients_.Load(step);
    if (stopping_.agreed()) return;
    TryExchanges(step, next);
    session_.ops().rows->Zero(session_.compute(), session_.model().params().gradients());
  }
  micro_step.ShowSpans(in_full || (config_.profile.level != ProfileDetail::kOff && step % shown_every_ == 0));
}

bool Trials::exchange_is_open() const {
  bool selects = false;
  for (int64_t layer = 0; layer < config_.model.layers; ++layer) {
    selects |= config_.model.AttentionOf(layer) == AttentionKind::kNsa;
  }
  return selects && config_.parallel.selected_exchange == SelectedExchange::kAuto &&
         config_.runtime.graphs != Graphs::kOn && job_.mesh().cp_size() > 1;
}

std::vector<double> Trials::Exchange(bool fetches) const {
  const Mesh& mesh = job_.mesh();
  return {fetches ? 1.0 : 0.0, static_cast<double>(mesh.world().size()), static_cast<double>(mesh.cp_size())};
}

void Trials::TryExchanges(int64_t step, const StepGradients::Loaded& loaded) {
  Transformer& model = session_.model();
  MicroStep& micro_step = gradients_.micro_step();
  const auto set = [&](bool fetches) {
    model.SetExchange(fetches ? SelectedExchange::kFetch : SelectedExchange::kGather);
  };
  const auto seconds = [&] {
    const double first = Seconds(loaded);
    return first > kLongPassSeconds ? first : std::min(first, Seconds(loaded));
  };
  const bool fetched = model.fetches(), launched = micro_step.uses_graphs();
  tried_ = step;
  session_.compute().Synchronize();
  micro_step.UseGraphs(false);
  set(true);
  const double fetching = seconds();
  const double coverage = job_.Reduce(model.coverage(), ReduceOp::kSum) / job_.mesh().world().size();
  set(false);
  const std::string graphs = TryGraphs(loaded);
  const double gathering = seconds();
  if (stopping_.agreed()) {
    set(fetched);
    micro_step.UseGraphs(launched);
    return;
  }
  const bool fetch = fetching < kFetchPays * gathering;
  if (fetch) {
    micro_step.UseGraphs(false);
    set(true);
  } else {
    Say(graphs);
  }
  Say(fmt::format("  exchange   forward and backward of a step: {:.2f} ms GATHER, {:.2f} ms FETCH of {:.0f}%: {}",
                  gathering * 1e3, fetching * 1e3, 100 * coverage, fetch ? "FETCH" : "GATHER"));
}

// Tells `micro_step` and returns the line that says so, "" when there was no choice.
std::string Trials::TryGraphs(const StepGradients::Loaded& loaded) {
  MicroStep& micro_step = gradients_.micro_step();
  const Graphs graphs = config_.runtime.graphs;
  const bool host_waits = (session_.model().fetches() && job_.mesh().cp_size() > 1) || job_.mesh().world().host_waits();
  const bool possible = job_.device().kind() == DeviceKind::kGpu && !host_waits;
  if (graphs == Graphs::kOn && !possible) {
    Fail(ExitCode::kConfig,
         "runtime.graphs = ON: needs GPUs, and transfers that do not wait on the host (NCCL or PEER, no FETCH); set it "
         "to AUTO");
  }
  if (graphs == Graphs::kOff || !possible) return "";
  const std::optional<bool> given = graphs == Graphs::kOn ? true : graphs_;
  if (given == false) return "  graphs     as the checkpoint says: not used";

  const bool long_anyway = job_.Reduce(least_seconds_, ReduceOp::kMax) > kLongPassSeconds;
  const bool measures = !given || config_.profile.level == ProfileDetail::kSteps;
  const double first = long_anyway || !measures ? INFINITY : Seconds(loaded);
  const bool is_long = first > kLongPassSeconds;
  if (is_long && !given) return "  graphs     not used: forward and backward of a step take over half a second";
  const double enqueued = is_long ? first : std::min(first, Seconds(loaded));
  micro_step.UseGraphs(true);
  Seconds(loaded);  // captures
  shown_every_ = kShownEvery;
  std::string line = "  graphs     forward and backward of a step: ";
  if (!is_long) {
    const double tries[] = {Seconds(loaded), Seconds(loaded)};
    const double launched = std::min(tries[0], tries[1]);
    if (!given && launched >= kGraphsPay * enqueued) micro_step.UseGraphs(false);
    const double longer = enqueued / std::max(1e-9, launched) - 1;
    if (longer > 0) shown_every_ = std::max(kShownEvery, static_cast<int64_t>(std::ceil(longer / kShownCost)));
    line += fmt::format("{:.2f} ms enqueued, {:.2f} ms as CUDA graphs: ", enqueued * 1e3, launched * 1e3);
  }
  return line + GraphsUse() +
         (!given                  ? ""
          : graphs == Graphs::kOn ? ", as runtime.graphs says"
                                  : ", as the checkpoint says");
}

std::string Trials::GraphsUse() const {
  if (!gradients_.micro_step().uses_graphs()) return "not used";
  switch (config_.profile.level) {
    case ProfileDetail::kOff:
      return "used";
    case ProfileDetail::kFull:
      return "used, but in no step that profile.level = FULL shows";
    case ProfileDetail::kSteps:
      break;
  }
  return fmt::format("used, but for one of {} steps and those of profile.steps, whose kernels are seen", shown_every_);
}

void Trials::Say(const std::string& line) {
  if (!line.empty() && !stopping_.agreed()) log_.Line(line);
}

// Of a pass, of the slowest rank. 0 without one where the run is to stop.
double Trials::Seconds(const StepGradients::Loaded& loaded) {
  if (stopping_.agreed()) return 0;
  session_.compute().Synchronize();
  const double begin = WallSeconds();
  gradients_.Add(loaded);
  session_.compute().Synchronize();
  const std::vector<double> all =
      job_.Reduce({{WallSeconds() - begin, ReduceOp::kMax}, {stopping_.wish(), ReduceOp::kMax}});
  stopping_.Agree(all[1]);
  return all[0];
}

}  // namespace longspan
