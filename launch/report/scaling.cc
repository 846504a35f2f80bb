#include "launch/report/scaling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/count.h"

namespace longspan {
namespace {

using nlohmann::json;

struct Point {
  size_t run = 0;
  int ranks = 0;
  double tokens = 0;  // of a step
  double step = 0, throughput = 0, exposed = 0, memory = 0;
  double a_rank() const { return throughput / ranks; }
};

// Of the steps that the profile has.
Point PointOf(const ReportedRun& run, size_t index) {
  Point point{.run = index, .ranks = run.summary.expected, .step = run.summary.step_median};
  std::vector<double> tokens;
  for (const StepMetric& step : run.metrics.steps) {
    if (std::isfinite(step.tokens)) tokens.push_back(step.tokens);
    point.memory = std::max(point.memory, step.memory);  // a NaN is no more
  }
  point.tokens = LowerMedian(tokens);
  point.throughput = point.step > 0 ? point.tokens / point.step : 0;
  point.exposed = run.summary.mean.step > 0 ? run.summary.exposed() / run.summary.mean.step : 0;
  return point;
}

struct Table {
  bool weak = false;
  double tokens = 0;  // of a step; weak: and rank
  std::vector<Point> rows;
  double Efficiency(const Point& row) const { return row.a_rank() / std::max(1e-300, rows[0].a_rank()); }
  double Speedup(const Point& row) const { return row.throughput / std::max(1e-300, rows[0].throughput); }
};

std::vector<Table> TablesOf(const std::vector<ReportedRun>& runs) {
  std::map<std::pair<bool, double>, Table> tables;
  for (size_t i = 0; i < runs.size(); ++i) {
    const Point point = PointOf(runs[i], i);
    for (const bool weak : {false, true}) {
      const double tokens = weak ? point.tokens / point.ranks : point.tokens;
      Table& table = tables[{weak, tokens}];
      table.weak = weak;
      table.tokens = tokens;
      table.rows.push_back(point);
    }
  }
  std::vector<Table> list;
  for (auto& [key, table] : tables) {
    std::stable_sort(table.rows.begin(), table.rows.end(),
                     [](const Point& a, const Point& b) { return a.ranks < b.ranks; });
    if (table.rows.front().ranks < table.rows.back().ranks) list.push_back(table);
  }
  return list;
}

}  // namespace

std::string ScalingText(const std::vector<ReportedRun>& runs) {
  std::string text;
  for (const Table& table : TablesOf(runs)) {
    text += table.weak ? fmt::format("weak scaling, {} a step and rank\n", Count(std::llround(table.tokens), "token"))
                       : fmt::format("strong scaling, {} a step\n", Count(std::llround(table.tokens), "token"));
    text += fmt::format("  {:>5} {:>9} {:>10} {:>10} {:>9} {:>11} {:>9} {:>10}  {}\n", "ranks", "dp x cp", "step ms",
                        "tokens/s", "speed-up", "efficiency", "exposed", "MiB a rank", "run");
    for (const Point& row : table.rows) {
      const Summary& summary = runs[row.run].summary;
      text += fmt::format("  {:>5} {:>9} {:>10.2f} {:>10.0f} {:>8.2f}x {:>10.1f}% {:>8.1f}% {:>10.0f}  {}\n", row.ranks,
                          fmt::format("{} x {}", summary.header.dp_size(), summary.header.cp_size()), 1e3 * row.step,
                          row.throughput, table.Speedup(row), 100 * table.Efficiency(row), 100 * row.exposed,
                          row.memory / (1 << 20), summary.folder);
    }
    text += "\n";
  }
  if (text.empty()) {
    return "no two runs on different numbers of ranks have the same tokens a step, or a step and rank: nothing to "
           "compare\n";
  }
  return text +
         "step: median of the slowest rank's; speed-up and efficiency (throughput a rank) against the first row\n";
}

std::string ScalingJson(const std::vector<ReportedRun>& runs) {
  json result = {{"version", 1}, {"runs", json::array()}, {"tables", json::array()}};
  for (size_t i = 0; i < runs.size(); ++i) {
    const Point point = PointOf(runs[i], i);
    const proto::Header& header = runs[i].summary.header;
    result["runs"].push_back({{"run", runs[i].summary.folder},
                              {"ranks", point.ranks},
                              {"dp", header.dp_size()},
                              {"cp", header.cp_size()},
                              {"device", header.device()},
                              {"tokens", point.tokens},
                              {"step", point.step},
                              {"tokens_per_second", point.throughput},
                              {"exposed_share", point.exposed},
                              {"memory", point.memory}});
  }
  for (const Table& table : TablesOf(runs)) {
    json rows = json::array();
    for (const Point& row : table.rows) {
      rows.push_back({{"run", row.run}, {"speedup", table.Speedup(row)}, {"efficiency", table.Efficiency(row)}});
    }
    result["tables"].push_back({{"kind", table.weak ? "weak" : "strong"}, {"tokens", table.tokens}, {"rows", rows}});
  }
  return result.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace longspan
