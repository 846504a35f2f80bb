#include "launch/train/exchanges.h"

#include <fmt/format.h>

#include <algorithm>

#include "launch/train/graphs.h"

namespace longspan {
namespace {

constexpr double kPay = 0.97;  // of the time that GATHER takes

}  // namespace

bool ChoosesExchange(const RunConfig& config, const Job& job) {
  bool selects = false;
  for (int64_t layer = 0; layer < config.model.layers; ++layer) {
    selects |= config.model.AttentionOf(layer) == AttentionKind::kNsa;
  }
  return selects && config.parallel.selected_exchange == SelectedExchange::kAuto &&
         config.runtime.graphs != Graphs::kOn && job.mesh().cp_size() > 1;
}

bool ChoosesExchangeAfter(int64_t steps) {
  while (steps > 10 && steps % 10 == 0) steps /= 10;
  return steps == 10;
}

std::string ChooseExchange(Job& job, Session& session, MicroStep& micro_step, const std::function<void()>& pass,
                           const std::function<void()>& choose_graphs) {
  Transformer& model = session.model();
  const auto seconds = [&] {
    const double first = PassSeconds(job, session.compute(), pass);
    return first > kLongPassSeconds ? first : std::min(first, PassSeconds(job, session.compute(), pass));
  };
  session.compute().Synchronize();
  micro_step.UseGraphs(false);
  model.SetExchange(SelectedExchange::kFetch);
  const double fetching = seconds();
  const double coverage = job.Reduce(model.coverage(), ReduceOp::kSum) / job.mesh().world().size();
  model.SetExchange(SelectedExchange::kGather);
  choose_graphs();
  const double gathering = seconds();
  const bool fetch = fetching < kPay * gathering;
  if (fetch) {
    micro_step.UseGraphs(false);
    model.SetExchange(SelectedExchange::kFetch);
  }
  return fmt::format("  exchange   forward and backward of a step: {:.2f} ms GATHER, {:.2f} ms FETCH of {:.0f}%: {}",
                     gathering * 1e3, fetching * 1e3, 100 * coverage, fetch ? "FETCH" : "GATHER");
}

}  // namespace longspan
