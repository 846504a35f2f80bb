// The report as text.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "launch/report/report.h"
#include "runtime/count.h"

namespace longspan {
namespace {

constexpr size_t kMostRankRows = 16, kMostStages = 24, kMostTransfers = 12;  // that are shown; report.json has all
constexpr double kLeastShown = 0.002;                                        // of a step, of a stage

std::string Head(const Summary& summary) {
  const proto::Header& header = summary.header;
  std::string text = fmt::format("{}: {} = dp {} x cp {}, {}, {} from step {} to {}{}\n", summary.folder,
                                 Count(static_cast<int64_t>(summary.expected), "rank"), header.dp_size(),
                                 header.cp_size(), header.device(), Count(summary.steps, "step"), summary.first_step,
                                 summary.last_step, summary.ended ? "" : ", so far");
  for (const std::string& problem : summary.problems) text += fmt::format("  ! {}\n", problem);
  const double rate = header.step_flops() / summary.step;
  text += fmt::format("  a step takes {:.2f} ms (median {:.2f}), {:.4g} GFLOP at {:.4g} GFLOP/s", Ms(summary.step),
                      Ms(summary.step_median), header.step_flops() * 1e-9, rate * 1e-9);
  if (header.peak_flops() > 0) text += fmt::format(", {:.1f}% of the measured peak", 100 * rate / header.peak_flops());
  if (summary.dense_flops > 0 && header.peak_flops() > 0) {
    text +=
        fmt::format("\n  dense-equivalent {:.4g} GFLOP, {:.4g} GFLOP/s: as if every query attended to all before it",
                    summary.dense_flops * 1e-9, summary.dense_flops / summary.step * 1e-9);
  }
  text += fmt::format("\n  clocks of the ranks agree within {:.3g} ms\n", Ms(summary.clock_error));
  if (summary.seen == 0) {
    text +=
        "  stages and transfers within CUDA graphs are not seen; those of the steps that profile.steps chooses are\n";
  } else if (summary.seen < summary.steps) {
    text += fmt::format(
        "  CUDA graphs; {} of the steps ran kernel by kernel, {:.2f} ms each: ranks, stages and transfers are theirs\n",
        summary.seen, Ms(summary.mean.step));
  }
  return text;
}

std::string Costs(const Summary& summary) {
  std::string text = "\nthe largest costs\n";
  int number = 0;
  for (const Finding& cost : summary.costs) {
    text += fmt::format("  {}. {}\n", ++number, cost.what);
    if (!cost.advice.empty()) text += fmt::format("     try: {}\n", cost.advice);
  }
  return text;
}

std::string When(const Straggler& straggler) {
  if (!straggler.single.empty()) {
    std::string steps;
    for (const int64_t step : straggler.single) steps += fmt::format("{}{}", steps.empty() ? "" : ", ", step);
    return fmt::format("one-off, step {}", steps);
  }
  if (straggler.since_start && straggler.to_end) return "chronic";
  if (straggler.to_end) return fmt::format("since step {}", straggler.first_step);
  return fmt::format("steps {} to {}", straggler.first_step, straggler.last_step);
}

std::string Stragglers(const Summary& summary) {
  if (summary.ranks.size() < 2) return "";
  std::string text = "\nslow by their own doing";
  if (summary.stragglers.empty()) return text + ": no rank stands out\n";
  text += ": own time over the median rank's, and what their steps would save were they like it\n";
  text += fmt::format("  {:>5} {:<9} {:<24} {:<28} {:>10} {:>7} {:>12}\n", "rank", "class", "when", "where",
                      "over by ms", "ratio", "would save");
  for (const Straggler& straggler : summary.stragglers) {
    text += fmt::format("  {:>5} {:<9} {:<24} {:<28} {:>10.2f} {:>6.2f}x {:>11.1f}%\n", straggler.rank,
                        ClassName(straggler.what), When(straggler),
                        WhereOf(straggler).empty() ? "spread over stages" : WhereOf(straggler), Ms(straggler.excess),
                        straggler.ratio, 100 * straggler.saving_share);
  }
  return text;
}

// On several nodes: where the slow ranks run.
std::string SlowNodes(const Summary& summary) {
  std::map<std::string, std::set<int>> hosts;
  for (const RankRow& row : summary.ranks) hosts[row.host];
  if (hosts.size() < 2) return "";
  for (const Straggler& straggler : summary.stragglers) {
    for (const RankRow& row : summary.ranks) {
      if (row.rank == straggler.rank) hosts[row.host].insert(row.rank);
    }
  }
  std::string text;
  for (const auto& [host, slow] : hosts) {
    const auto there = std::count_if(summary.ranks.begin(), summary.ranks.end(),
                                     [&host](const RankRow& row) { return row.host == host; });
    if (slow.empty()) continue;
    text += fmt::format("  on node {}, which has {}: {}\n", host, Count(there, "rank"), fmt::join(slow, ", "));
  }
  return text;
}

std::string RankLine(const std::string& name, const RankRow& row) {
  return fmt::format("  {:>5} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f}\n", name,
                     Ms(row.step), Ms(row.work), Ms(row.data), Ms(row.other), Ms(row.waiting), Ms(row.moving),
                     Ms(row.hidden), Ms(row.own()), Ms(row.awaited));
}

// With many ranks, those with the most own time.
std::string Ranks(const Summary& summary) {
  std::string text =
      "\nranks, ms of a step: step = work + data + other + waiting + moving; own = the first three\n"
      "  hidden: transfers behind kernels, no part of the step; awaited: how long others waited for it\n";
  text += fmt::format("  {:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "rank", "step", "work", "data",
                      "other", "waiting", "moving", "hidden", "own", "awaited");
  std::vector<RankRow> rows = summary.ranks;
  if (rows.size() > kMostRankRows) {
    std::stable_sort(rows.begin(), rows.end(), [](const RankRow& a, const RankRow& b) { return a.own() > b.own(); });
    rows.resize(kMostRankRows);
    std::sort(rows.begin(), rows.end(), [](const RankRow& a, const RankRow& b) { return a.rank < b.rank; });
  }
  for (const RankRow& row : rows) text += RankLine(fmt::format("{}", row.rank), row);
  return text + RankLine("mean", summary.mean);
}

std::string Stages(const Summary& summary) {
  std::string text = "\nstages, ms of a step of own work over ranks\n";
  text += fmt::format("  {:<28} {:>8} {:>8} {:>8} {:>7} {:>8} {:>10} {:>9} {:>8}\n", "stage", "min", "median", "max",
                      "share", "slowest", "imbalance", "GFLOP/s", "GB/s");
  size_t shown = 0;
  double rest = 0;
  for (const StageRow& row : summary.stages) {
    const Spread& seconds = row.seconds;
    if (shown >= kMostStages || seconds.mean < kLeastShown * summary.mean.step) {
      rest += seconds.mean;
      continue;
    }
    ++shown;
    text += fmt::format("  {:<28} {:>8.2f} {:>8.2f} {:>8.2f} {:>6.1f}% {:>8} {:>9.0f}% {:>9.2f} {:>8.2f}\n",
                        StageName(row.stage, row.pass), Ms(seconds.min), Ms(seconds.median), Ms(seconds.max),
                        100 * seconds.mean / summary.mean.step, seconds.slowest, 100 * seconds.imbalance(),
                        row.flops / seconds.mean * 1e-9, row.bytes / seconds.mean * 1e-9);
  }
  const auto line = [&](const char* name, double seconds) {
    text += fmt::format("  {:<28} {:>26.2f} {:>6.1f}%\n", name, Ms(seconds), 100 * seconds / summary.mean.step);
  };
  line("smaller stages, mean", rest);
  line("waiting for other ranks", summary.mean.waiting);
  line("moving data", summary.mean.moving);
  line("other: outside of stages", summary.mean.other);
  line("the step", summary.mean.step);
  return text;
}

std::string Transfers(const Summary& summary) {
  std::string text;
  const bool nodes = std::any_of(summary.transfers.begin(), summary.transfers.end(),
                                 [](const TransferRow& row) { return row.far > 0; });
  if (!summary.transfers.empty()) {
    text = "\ntransfers of a step, mean of ranks; bus GB/s = received bytes / moving\n";
    text += fmt::format("  {:<28} {:<16} {:>7} {:>10}{} {:>10} {:>10} {:>10} {:>9}\n", "stage", "operation", "calls",
                        "MiB", nodes ? "   far MiB" : "", "waiting ms", "moving ms", "exposed ms", "bus GB/s");
  }
  size_t shown = 0;
  for (const TransferRow& row : summary.transfers) {
    if (++shown > kMostTransfers) break;
    const std::string name = row.name.starts_with("comm.") ? row.name.substr(5) : row.name;
    text += fmt::format("  {:<28} {:<16} {:>7.4g} {:>10.3f}{} {:>10.3f} {:>10.3f} {:>10.3f} {:>9.3f}\n",
                        StageName(row.stage, row.pass), name, row.calls, row.bytes / (1 << 20),
                        nodes ? fmt::format("{:>10.3f}", row.far / (1 << 20)) : "", Ms(row.waiting), Ms(row.moving),
                        Ms(row.exposed), row.moving > 0 ? row.bytes / row.moving * 1e-9 : 0.0);
  }
  if (nodes) {
    double far = 0;
    for (const TransferRow& row : summary.transfers) far += row.far;
    text += fmt::format("  from other nodes (far): {:.3f} MiB a rank\n", far / (1 << 20));
  }
  if (!summary.links.empty()) {
    const auto slowest = std::min_element(summary.links.begin(), summary.links.end(),
                                          [](const LinkRow& a, const LinkRow& b) { return a.newest < b.newest; });
    std::vector<double> newest;
    for (const LinkRow& link : summary.links) newest.push_back(link.newest);
    text += fmt::format(
        "  messages of 256 KiB to the next rank: {:.3g} GB/s at the median, {:.3g} from rank {} to {}, the slowest\n",
        LowerMedian(newest) * 1e-9, slowest->newest * 1e-9, slowest->from, slowest->to);
  }
  return text + fmt::format(
                    "  exposed communication: {:.2f} ms of a step, {:.1f}%: waiting {:.2f}, moving {:.2f}; "
                    "hidden {:.2f}\n",
                    Ms(summary.exposed()), 100 * summary.exposed() / summary.mean.step, Ms(summary.mean.waiting),
                    Ms(summary.mean.moving), Ms(summary.mean.hidden));
}

std::string Gpus(const Summary& summary) {
  if (summary.gpus.empty()) return "";
  std::string text = fmt::format(
      "\nGPUs from the first step to the last: MHz of their multiprocessors; held: part of the time for which clocks "
      "were held down\n"
      "  {:>5} {:>7} {:>7} {:>7} {:>7} {:>7} {:>5} {:>7}  {:<32} {}\n",
      "rank", "MHz", "lowest", "of", "W", "of", "max C", "held", "by", "new memory errors");
  const auto errors = [](const GpuRow& row) {
    if (row.corrected + row.uncorrected == 0) return std::string("none");
    return fmt::format("{} corrected, {} not", row.corrected, row.uncorrected);
  };
  for (const GpuRow& row : summary.gpus) {
    text += fmt::format("  {:>5} {:>7.0f} {:>7.0f} {:>7.0f} {:>7.0f} {:>7.0f} {:>5.0f} {:>6.0f}%  {:<32} {}\n",
                        row.rank, row.sm_clock, row.lowest, row.most_sm_clock, row.power, row.power_limit,
                        row.temperature, 100 * row.held, row.held_by.empty() ? "-" : row.held_by, errors(row));
  }
  return text;
}

std::string Memory(const Summary& summary) {
  std::string text = "\nmemory of a rank, MiB: the most at a time\n";
  for (const MemoryOfUse& row : summary.memory) {
    text += fmt::format("  {:<45} {:>10.2f}", (row.host ? "host: " : "") + row.use, row.max / (1 << 20));
    text += row.min < row.max ? fmt::format("   {:.2f} on the rank that has least\n", row.min / (1 << 20)) : "\n";
  }
  return text;
}

std::string Plan(const Summary& summary) {
  if (summary.plan.empty()) return "";
  std::string text = fmt::format(
      "\nthe plan (longspan plan) of the rank that steps ask most of, beside what it measured\n  {:<28} {:>12} {:>12} "
      "{:>10}\n",
      "", "planned", "measured", "off by");
  for (const PlanRow& row : summary.plan) {
    const bool bytes = row.unit == "bytes", flops = row.unit == "FLOP";
    const double scale = bytes ? 1.0 / (1 << 20) : flops ? 1e-9 : 1e3;
    const double off = row.planned > 0 ? row.measured / row.planned - 1 : 0;
    text += fmt::format("  {:<28} {:>12.3f} {:>12.3f} {:>+9.1f}%  {}\n", row.what, scale * row.planned,
                        scale * row.measured, 100 * off,
                        bytes   ? "MiB"
                        : flops ? "GFLOP"
                                : "ms");
  }
  return text;
}

std::string Selection(const Summary& summary) {
  std::string text = fmt::format(
      "\nselection: {:.1f}% of other ranks' blocks fetched, {:.3f} MiB borrowed by a forward pass of a sequence\n",
      100 * summary.coverage, summary.borrowed / (1 << 20));
  if (summary.selection.empty())
    return text + "  train.record_selection shows which, and what neighbours have in common\n";
  text += fmt::format(
      "  before step {}: where the blocks lie; blocks that a rank's queries chose, and of those that they see; blocks "
      "that\n"
      "  neighbours share (Jaccard) and choose together; the block that most queries chose\n"
      "  {:>5} {:>7} {:>7} {:>7} {:>9} {:>7} {:>8} {:>7} {:>7} {:>7} {:>8}\n",
      summary.selection_step, "layer", "local", "halo", "remote", "distinct", "share", "Jaccard", "2", "4", "8",
      "hottest");
  for (const SelectionMetric& row : summary.selection) {
    text += fmt::format(
        "  {:>5} {:>6.1f}% {:>6.1f}% {:>6.1f}% {:>9.1f} {:>6.1f}% {:>8.3f} {:>7.1f} {:>7.1f} {:>7.1f} {:>7.1f}%\n",
        row.layer, 100 * row.local, 100 * row.halo, 100 * row.remote, row.distinct_blocks, 100 * row.distinct_share,
        row.jaccard, row.union2, row.union4, row.union8, 100 * row.hottest);
  }
  return text;
}

std::string LedgerText(const Summary& summary) {
  const Ledger& ledger = summary.ledger;
  std::string text = fmt::format("\nwhere all {:.1f} s went: training {:.1f} ({:.1f}%)", ledger.total, ledger.training,
                                 100 * ledger.training / std::max(1e-9, ledger.total));
  for (const auto& [name, seconds] : {std::pair("start", ledger.startup), std::pair("data", ledger.data),
                                      std::pair("saves", ledger.checkpoint), std::pair("evaluation", ledger.evaluation),
                                      std::pair("stopped", ledger.stopped), std::pair("other", ledger.other)}) {
    if (seconds >= 0.05) text += fmt::format(", {} {:.1f}", name, seconds);
  }
  if (ledger.lost_steps > 0) {
    text += fmt::format(", {} done again {:.1f}", Count(ledger.lost_steps, "step"), ledger.lost);
  }
  if (ledger.restarts > 0) text += "; " + Count(int64_t{ledger.restarts}, "restart");
  return text + "\n";
}

}  // namespace

std::string ReportText(const Summary& summary) {
  if (summary.steps == 0) {
    std::string text = fmt::format("{}: no training step that all ranks have recorded yet\n", summary.folder);
    for (const std::string& problem : summary.problems) text += fmt::format("  ! {}\n", problem);
    return text;
  }
  return Head(summary) + Costs(summary) + Stragglers(summary) + SlowNodes(summary) + Ranks(summary) + Stages(summary) +
         Transfers(summary) + Selection(summary) + Gpus(summary) + Memory(summary) + Plan(summary) +
         LedgerText(summary);
}

}  // namespace longspan
