// The largest costs of a run in words, and where its time went over all starts.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "launch/report/summary.h"

namespace longspan {
namespace {

constexpr size_t kMostCosts = 3;
constexpr double kLeastShare = 0.01;  // of a step

std::string AdviceOn(const Straggler& straggler) {
  switch (straggler.what) {
    case SlowClass::kCompute:
      return straggler.stage.empty() ? "compare that device's clocks and temperature, or run longspan bench on it"
                                     : "if its work is more, parallel.layout = HEAD_TAIL; else longspan bench there";
    case SlowClass::kThrottled:
      return "its cooling and power: nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER there; or leave that GPU out";
    case SlowClass::kHost:
      return "its thread did not run: look for other programs on its cores, signals, and how ranks are bound";
    case SlowClass::kData:
      return "its sequences come late: a faster or local disk for the dataset, or who else reads there";
    case SlowClass::kLink:
      return "longspan verify measures the links; look for a slow adapter or cable of that node";
  }
  return "";
}

std::string Find(const std::map<std::string, std::string>& advice, const std::string& stage,
                 const std::string& otherwise) {
  const auto found = advice.find(stage);
  return found == advice.end() ? otherwise : found->second;
}

std::string AdviceOnTransfer(const std::string& stage) {
  return Find(
      {{"selected_transfer", "parallel.selected_exchange = FETCH brings only chosen blocks; or a smaller parallel.cp"},
       {"summaries", "a larger model.nsa.stride makes fewer summaries; or a smaller parallel.cp"},
       {"halo", "a shorter model.nsa.window has a shorter halo; or a smaller parallel.cp"},
       {"reductions", "a larger train.sequences_per_step: fewer updates for the same tokens"},
       {"weights", "a larger train.sequences_per_step: fewer updates for the same tokens"},
       {"agreement", "a larger train.sequences_per_step: longer steps"}},
      stage, "longspan verify measures the links");
}

std::string AdviceOnStage(const std::string& stage) {
  return Find({{"selected", "a smaller model.nsa.select"},
               {"window", "a shorter model.nsa.window"},
               {"compressed", "a larger model.nsa.stride makes fewer summaries"},
               {"scoring", "a larger model.nsa.stride makes fewer summaries"},
               {"optimizer", "a larger train.sequences_per_step: fewer updates for the same tokens"}},
              stage, "the model asks for it: more ranks share it, by parallel.cp or parallel.dp");
}

}  // namespace

std::vector<Finding> LargestCosts(const Summary& summary) {
  std::vector<Finding> costs;
  const auto add_of = [&](double step, double seconds, const std::string& what, const std::string& advice) {
    if (seconds < kLeastShare * step) return;
    costs.push_back(
        {seconds, fmt::format("{:.3g} ms a step, {:.0f}%: {}", Ms(seconds), 100 * seconds / step, what), advice});
  };
  const auto add = [&](double seconds, const std::string& what, const std::string& advice) {
    add_of(summary.mean.step, seconds, what, advice);
  };
  const RankRow& mean = summary.mean;
  double waiting = mean.waiting, moving = mean.moving;  // that no straggler explains
  for (const Straggler& straggler : summary.stragglers) {
    const auto part = static_cast<double>(straggler.last_step - straggler.first_step + 1) /
                      static_cast<double>(std::max<int64_t>(1, summary.last_step - summary.first_step + 1));
    const double seconds = straggler.single.empty() ? straggler.saving * std::min(1.0, part) : straggler.saving;
    (straggler.what == SlowClass::kLink ? moving : waiting) -= seconds;
    std::string why = WhereOf(straggler);  // of a link that is its class, too
    if (straggler.link.empty()) why = std::string(ClassName(straggler.what)) + (why.empty() ? "" : ", " + why);
    if (!straggler.held_by.empty()) {
      why += fmt::format(", {:.0f} MHz, others {:.0f}", straggler.sm_clock, straggler.usual_sm_clock);
    }
    // One that goes on weighs as much as it does now.
    const bool now = straggler.single.empty() && straggler.to_end;
    const std::string since = now && !straggler.since_start ? fmt::format(" since step {}", straggler.first_step) : "";
    add_of(now ? straggler.saving / std::max(1e-12, straggler.saving_share) : summary.mean.step,
           now ? straggler.saving : seconds,
           fmt::format("rank {} is slow by its own doing{} ({})", straggler.rank, since, why), AdviceOn(straggler));
  }
  add(waiting, "ranks wait for each other, no one rank for long enough to be named",
      summary.ranks.size() > 1 ? "fewer ranks than cores, and no other programs on these; documents of even length"
                               : "");
  if (!summary.transfers.empty()) {
    const auto exposed = [](const TransferRow& row) {
      return row.exposed * row.moving / std::max(1e-12, row.waiting + row.moving);
    };
    const auto most =
        std::max_element(summary.transfers.begin(), summary.transfers.end(),
                         [&](const TransferRow& a, const TransferRow& b) { return exposed(a) < exposed(b); });
    add(moving,
        fmt::format("data moves between ranks and nothing hides it, the largest part for {}",
                    StageName(most->stage, most->pass)),
        AdviceOnTransfer(most->stage));
  }
  for (const StageRow& row : summary.stages) {
    if (row.stage == "data" || row.stage == "graph") continue;
    add(row.seconds.mean,
        row.flops > 0 ? fmt::format("{} computes at {:.3g} GFLOP/s a rank", StageName(row.stage, row.pass),
                                    row.flops / std::max(1e-12, row.seconds.mean) * 1e-9)
                      : fmt::format("{} computes", StageName(row.stage, row.pass)),
        AdviceOnStage(row.stage));
    break;  // they are sorted: the largest
  }
  add(mean.data, "steps wait for their sequences", "a faster or local disk for the dataset");
  add(mean.other, "the host is between kernels, or kept from running",
      "fewer ranks than cores, no other programs; on GPUs runtime.graphs = ON");
  const double steps = static_cast<double>(std::max<int64_t>(1, summary.steps));
  add(summary.ledger.checkpoint / steps, "training stands still for saves",
      "checkpoint.background = true, or save less often");
  add(summary.ledger.evaluation / steps, "held-out sequences are evaluated",
      "raise train.eval_interval, or lower train.eval_sequences");
  std::stable_sort(costs.begin(), costs.end(),
                   [](const Finding& a, const Finding& b) { return a.seconds > b.seconds; });
  if (costs.size() > kMostCosts) costs.resize(kMostCosts);
  return costs;
}

// Steps that a later start did again are lost.
Ledger LedgerOf(const ProfileData& data) {
  Ledger ledger;
  const RankProfile& rank = data.ranks[0];
  const std::vector<ProfileSession>& sessions = rank.sessions;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const ProfileSession& session = sessions[i];
    ledger.startup += session.startup;
    ledger.total += session.startup + session.end - session.begin;
    if (i + 1 == sessions.size()) break;
    const ProfileSession& next = sessions[i + 1];
    if (!next.next_stage) ++ledger.restarts;
    const double stopped = std::max(0.0, next.begin - next.startup - session.end);
    ledger.stopped += stopped;
    ledger.total += stopped;
    double steps = 0;
    for (size_t k = 0; k < session.step_seconds.size(); ++k) {
      const bool lost = session.first_step + static_cast<int64_t>(k) >= next.first_step;
      (lost ? ledger.lost : ledger.training) += session.step_seconds[k];
      steps += session.step_seconds[k];
      if (lost) ++ledger.lost_steps;
    }
    ledger.other += std::max(0.0, session.end - session.begin - steps);
  }
  const ProfileTotals& totals = rank.totals;
  ledger.checkpoint += totals.checkpoint;
  ledger.evaluation += totals.evaluation;
  ledger.data += totals.data;
  ledger.training += totals.steps_seconds - totals.data;
  if (!sessions.empty()) ledger.other += std::max(0.0, sessions.back().end - sessions.back().begin - totals.seconds);
  return ledger;
}

}  // namespace longspan
