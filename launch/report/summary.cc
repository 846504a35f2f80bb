#include "launch/report/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "runtime/error.h"

namespace longspan {
namespace {

using StageKey = std::tuple<std::string, proto::Pass, int>;

Spread SpreadOf(const std::vector<double>& values, const std::vector<RankProfile>& ranks) {
  Spread spread;
  if (values.empty()) return spread;
  spread.by_rank = values;
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  spread.min = *least;
  spread.max = *most;
  spread.slowest = ranks[most - values.begin()].rank;
  spread.median = LowerMedian(values);
  for (const double value : values) spread.mean += value / static_cast<double>(values.size());
  return spread;
}

// In the order in which the stages first ran.
class StageTable {
 public:
  StageTable(size_t ranks, double steps) : ranks_(ranks), steps_(steps) {}
  void Add(size_t rank, const ProfileCell& cell, int layer) {
    if (cell.kind != proto::WORK && cell.kind != proto::WAIT && cell.kind != proto::BESIDE) return;
    const auto [found, added] = index_.try_emplace({cell.stage, cell.pass, layer}, rows_.size());
    if (added) {
      rows_.push_back({.stage = cell.stage, .pass = cell.pass, .layer = layer, .seconds = {}});
      seconds_.emplace_back(ranks_, 0.0);
    }
    StageRow& row = rows_[found->second];
    const double parts = steps_ * static_cast<double>(ranks_);
    row.flops += cell.flops / parts;
    row.bytes += cell.bytes / parts;
    if (cell.kind != proto::BESIDE) seconds_[found->second][rank] += cell.seconds / steps_;
  }
  std::vector<StageRow> Rows(const std::vector<RankProfile>& ranks) {
    for (size_t i = 0; i < rows_.size(); ++i) rows_[i].seconds = SpreadOf(seconds_[i], ranks);
    std::sort(rows_.begin(), rows_.end(),
              [](const StageRow& a, const StageRow& b) { return a.seconds.mean > b.seconds.mean; });
    return rows_;
  }

 private:
  const size_t ranks_;
  const double steps_;
  std::map<StageKey, size_t> index_;
  std::vector<StageRow> rows_;
  std::vector<std::vector<double>> seconds_;
};

std::vector<TransferRow> TransferRows(const StepTable& steps) {
  std::map<std::tuple<std::string, proto::Pass, std::string, bool>, TransferRow> rows;
  std::map<std::pair<std::string, proto::Pass>, double> stalls, beside_all;  // of a stage: the stream's, the transfers'
  const double parts = static_cast<double>(steps.size()) * static_cast<double>(steps[0].size());
  for (const auto& rank : steps) {
    for (const ProfilePeriod* step : rank) {
      for (const ProfileCell& cell : step->cells) {
        if (cell.kind == proto::STALL) stalls[{cell.stage, cell.pass}] += cell.seconds;
        if (cell.kind == proto::TRANSFER_BESIDE) beside_all[{cell.stage, cell.pass}] += cell.seconds;
      }
      for (const ProfileTransfer& transfer : step->transfers) {
        const ProfileSpan& span = transfer.span;
        const bool beside = span.kind == proto::TRANSFER_BESIDE;
        TransferRow& row = rows[{span.stage, span.pass, span.name, beside}];
        row.stage = span.stage;
        row.name = span.name;
        row.pass = span.pass;
        row.beside = beside;
        row.calls += 1;
        row.bytes += transfer.bytes;
        row.far += transfer.far;
        row.waiting += transfer.wait;
        row.moving += span.seconds - transfer.wait;
      }
    }
  }
  std::vector<TransferRow> list;
  for (auto& [key, row] : rows) {
    const std::pair place(row.stage, row.pass);
    const double both = row.waiting + row.moving, all = beside_all[place];
    row.exposed = !row.beside ? both : all > 0 ? std::min(both, stalls[place] * both / all) : 0;
    for (double* number : {&row.calls, &row.bytes, &row.far, &row.waiting, &row.moving, &row.exposed}) *number /= parts;
    list.push_back(row);
  }
  std::sort(list.begin(), list.end(),
            [](const TransferRow& a, const TransferRow& b) { return a.waiting + a.moving > b.waiting + b.moving; });
  return list;
}

std::vector<MemoryOfUse> MemoryRows(const ProfileData& data) {
  std::vector<MemoryOfUse> rows;
  const auto add = [&](const std::string& use, bool host, double bytes) {
    auto row = std::find_if(rows.begin(), rows.end(),
                            [&](const MemoryOfUse& known) { return known.use == use && known.host == host; });
    if (row == rows.end()) row = rows.insert(rows.end(), {use, host, bytes, bytes});
    row->min = std::min(row->min, bytes);
    row->max = std::max(row->max, bytes);
  };
  const auto add_peaks = [&](const auto& wanted, const std::string& name) {
    for (const RankProfile& rank : data.ranks) {
      for (const proto::Memory& peak : rank.peaks) {
        if (wanted(peak)) add(name.empty() ? peak.use() : name, peak.host(), static_cast<double>(peak.bytes()));
      }
    }
  };
  add_peaks([](const proto::Memory& peak) { return !peak.host() && !peak.use().empty(); }, "");
  std::stable_sort(rows.begin(), rows.end(), [](const MemoryOfUse& a, const MemoryOfUse& b) { return a.max > b.max; });
  add_peaks([](const proto::Memory& peak) { return peak.use().empty(); }, "all of these");
  for (const RankProfile& rank : data.ranks) {
    add(rank.header.gpu() ? "in use on the GPU" : "in use by the process", false, rank.totals.memory);
  }
  add_peaks([](const proto::Memory& peak) { return peak.host(); }, "");
  return rows;
}

std::vector<LinkRow> LinkRows(const ProfileData& data) {
  std::vector<LinkRow> rows;
  for (const RankProfile& rank : data.ranks) {
    if (rank.links.empty()) continue;
    LinkRow row{.from = rank.rank, .to = rank.links.back().peer};
    for (const ProfileLink& link : rank.links) {
      row.newest = link.seconds > 0 ? link.bytes / link.seconds : 0;
      row.best = std::max(row.best, row.newest);
    }
    rows.push_back(row);
  }
  return rows;
}

void AddTo(RankRow* sum, const RankRow& row, double share) {
  sum->step += row.step * share;
  sum->work += row.work * share;
  sum->waiting += row.waiting * share;
  sum->moving += row.moving * share;
  sum->data += row.data * share;
  sum->other += row.other * share;
  sum->hidden += row.hidden * share;
  sum->awaited += row.awaited * share;
  sum->cpu += row.cpu * share;
}

}  // namespace

double LowerMedian(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<int64_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

const char* ClassName(SlowClass what) {
  switch (what) {
    case SlowClass::kCompute:
      return "compute";
    case SlowClass::kThrottled:
      return "throttled";
    case SlowClass::kHost:
      return "host";
    case SlowClass::kData:
      return "data";
    case SlowClass::kLink:
      return "link";
  }
  return "";
}

std::string StageName(const std::string& stage, proto::Pass pass, int layer) {
  std::string name = stage;
  std::replace(name.begin(), name.end(), '_', ' ');
  if (pass != proto::NONE) name += fmt::format(" {}", PassName(pass));
  if (layer >= 0) name += fmt::format(", layer {}", layer);
  return name;
}

std::string WhereOf(const Straggler& straggler) {
  if (!straggler.link.empty()) return "link " + straggler.link;
  if (!straggler.held_by.empty()) return "GPU " + straggler.held_by;
  return straggler.stage.empty() ? "" : StageName(straggler.stage, straggler.pass, straggler.layer);
}

RankRow RowOf(const ProfilePeriod& step) {
  RankRow row;
  row.step = step.seconds;
  double transfers = 0, stalls = 0, beside = 0, waiting = 0, waiting_beside = 0;
  for (const ProfileCell& cell : step.cells) {
    if (cell.kind == proto::WORK) row.work += cell.seconds;
    if (cell.kind == proto::WORK) row.cpu += cell.cpu;
    if (cell.kind == proto::WAIT) row.data += cell.seconds;
    if (cell.kind == proto::STALL) stalls += cell.seconds;
    if (cell.kind == proto::TRANSFER) transfers += cell.seconds;
    if (cell.kind == proto::TRANSFER_BESIDE) beside += cell.seconds;
  }
  for (const ProfileTransfer& transfer : step.transfers) {
    (transfer.span.kind == proto::TRANSFER ? waiting : waiting_beside) += transfer.wait;
    row.awaited += transfer.late;
  }
  // A stall waits for transfers beside it: as much for ranks as these do.
  const double waiting_share = beside > 0 ? waiting_beside / beside : 0;
  row.waiting = waiting + stalls * waiting_share;
  row.moving = transfers - waiting + stalls * (1 - waiting_share);
  row.hidden = std::max(0.0, beside - stalls);
  row.other = row.step - row.work - row.data - row.waiting - row.moving;
  return row;
}

StepTable CommonSteps(const ProfileData& data) {
  std::map<int64_t, size_t> count;
  for (const RankProfile& rank : data.ranks) {
    for (const ProfilePeriod& period : rank.periods) {
      if (period.what == proto::Period::STEP) ++count[period.step];
    }
  }
  StepTable table(data.ranks.size());
  for (size_t r = 0; r < data.ranks.size(); ++r) {
    for (const ProfilePeriod& period : data.ranks[r].periods) {
      if (period.what == proto::Period::STEP && count[period.step] == data.ranks.size()) table[r].push_back(&period);
    }
  }
  return table;
}

StepTable SeenSteps(const StepTable& steps) {
  StepTable seen(steps.size());
  for (size_t i = 0; i < steps[0].size(); ++i) {
    if (!std::all_of(steps.begin(), steps.end(), [i](const auto& rank) { return IsSeen(*rank[i]); })) continue;
    for (size_t r = 0; r < steps.size(); ++r) seen[r].push_back(steps[r][i]);
  }
  return seen[0].empty() ? steps : seen;
}

Summary Summarize(const ProfileData& data) {
  Summary summary;
  summary.folder = data.folder;
  summary.expected = data.expected;
  summary.problems = data.problems;
  summary.clock_error = data.clock_error;
  summary.header = data.ranks[0].header;
  summary.ended = std::all_of(data.ranks.begin(), data.ranks.end(), [](const RankProfile& rank) { return rank.ended; });
  summary.ledger = LedgerOf(data);
  const StepTable all = CommonSteps(data);
  if (all[0].empty()) return summary;
  const auto shorter = [](const RankProfile& a, const RankProfile& b) {
    return a.totals.last_step < b.totals.last_step;
  };
  const ProfileTotals& totals = std::min_element(data.ranks.begin(), data.ranks.end(), shorter)->totals;
  summary.first_step = all[0].front()->step;
  summary.last_step = totals.last_step;
  summary.steps = totals.steps;
  summary.seen = totals.seen;
  std::vector<double> slowest(all[0].size(), 0.0);
  for (const auto& rank : all) {
    for (size_t i = 0; i < rank.size(); ++i) {
      summary.step += rank[i]->seconds / static_cast<double>(rank.size() * all.size());
      slowest[i] = std::max(slowest[i], rank[i]->seconds);
    }
  }
  summary.step_median = LowerMedian(slowest);

  const StepTable steps = SeenSteps(all);
  const auto count = static_cast<double>(steps[0].size());
  StageTable stages(data.ranks.size(), count), layers(data.ranks.size(), count);
  for (size_t r = 0; r < data.ranks.size(); ++r) {
    RankRow row;
    for (const ProfilePeriod* step : steps[r]) {
      AddTo(&row, RowOf(*step), 1 / count);
      for (const ProfileCell& cell : step->cells) stages.Add(r, cell, -1);
    }
    for (const ProfileCell& cell : data.ranks[r].layers) {
      if (cell.layer >= 0) layers.Add(r, cell, cell.layer);
    }
    AddTo(&summary.mean, row, 1 / static_cast<double>(data.ranks.size()));
    row.rank = data.ranks[r].rank;
    row.host = data.ranks[r].header.host();
    summary.ranks.push_back(row);
  }
  summary.stages = stages.Rows(data.ranks);
  summary.layers = layers.Rows(data.ranks);
  summary.transfers = TransferRows(steps);
  summary.links = LinkRows(data);
  summary.memory = MemoryRows(data);
  for (size_t r = 0; r < data.ranks.size(); ++r) {
    const ProfilePeriod &first = *all[r].front(), &last = *all[r].back();
    const GpuRow gpu = GpuBetween(data.ranks[r], first.begin, last.begin + last.seconds);
    if (gpu.readings > 0) summary.gpus.push_back(gpu);
  }
  summary.stragglers = FindStragglers(data, steps);
  summary.costs = LargestCosts(summary);
  return summary;
}

}  // namespace longspan
