#include "launch/report/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/count.h"

namespace longspan {
namespace {

using nlohmann::json;

constexpr size_t kMostShown = 16;
constexpr double kLeastChange = 0.005;  // of a step

struct Difference {
  std::string what;
  double a = 0, b = 0;  // seconds of a step
  double change() const { return b - a; }
};

std::vector<Difference> DifferencesOf(const Summary& a, const Summary& b) {
  std::map<std::string, Difference> parts;
  const auto add = [&](const Summary& run, double Difference::*side) {
    for (const StageRow& row : run.stages) parts[StageName(row.stage, row.pass)].*side += row.seconds.mean;
    parts["waiting for other ranks"].*side = run.mean.waiting;
    parts["moving data"].*side = run.mean.moving;
    parts["outside of stages"].*side = run.mean.other;
  };
  add(a, &Difference::a);
  add(b, &Difference::b);
  std::vector<Difference> list;
  for (auto& [what, difference] : parts) {
    difference.what = what;
    list.push_back(difference);
  }
  std::stable_sort(list.begin(), list.end(), [](const Difference& x, const Difference& y) {
    return std::abs(x.change()) > std::abs(y.change());
  });
  return list;
}

struct Figure {
  std::string what;
  std::optional<double> a, b;
};

double MedianThroughput(const RunMetrics& metrics) {
  std::vector<double> values;
  for (const StepMetric& step : metrics.steps) {
    if (std::isfinite(step.tokens_per_second)) values.push_back(step.tokens_per_second);
  }
  return LowerMedian(values);
}

std::optional<double> LossAt(const RunMetrics& metrics, int64_t step) {
  for (const StepMetric& metric : metrics.steps) {
    if (metric.step == step && std::isfinite(metric.loss)) return metric.loss;
  }
  return std::nullopt;
}

std::vector<Figure> FiguresOf(const ReportedRun& a, const ReportedRun& b) {
  std::vector<Figure> figures;
  const auto add = [&](std::string what, const auto& value) {
    figures.push_back({std::move(what), std::optional<double>(value(a)), std::optional<double>(value(b))});
  };
  add("tokens/s, median", [](const ReportedRun& run) { return MedianThroughput(run.metrics); });
  add("GFLOP/s", [](const ReportedRun& run) { return run.summary.header.step_flops() / run.summary.step * 1e-9; });
  add("exposed transfers, % of a step",
      [](const ReportedRun& run) { return 100 * run.summary.exposed() / run.summary.mean.step; });
  add("memory, MiB of the largest rank", [](const ReportedRun& run) {
    double most = 0;
    for (const StepMetric& step : run.metrics.steps) most = std::max(most, step.memory);
    return most / (1 << 20);
  });
  add("training, % of all time",
      [](const ReportedRun& run) { return 100 * run.summary.ledger.training / run.summary.ledger.total; });
  if (!a.metrics.steps.empty() && !b.metrics.steps.empty()) {
    const int64_t step = std::min(a.metrics.steps.back().step, b.metrics.steps.back().step);
    figures.push_back({fmt::format("loss of step {}", step), LossAt(a.metrics, step), LossAt(b.metrics, step)});
  }
  if (!a.metrics.evaluations.empty() && !b.metrics.evaluations.empty()) {
    add("held-out loss, last", [](const ReportedRun& run) { return run.metrics.evaluations.back().loss; });
  }
  return figures;
}

std::string RunLine(const char* name, const Summary& run) {
  const proto::Header& header = run.header;
  return fmt::format("  {}  {}: {} = dp {} x cp {}, {}, {} from step {}{}\n", name, run.folder,
                     Count(static_cast<int64_t>(run.expected), "rank"), header.dp_size(), header.cp_size(),
                     header.device(), Count(run.steps, "step"), run.first_step, run.ended ? "" : ", so far");
}

std::string BlamedIn(const Summary& run) {
  std::string text;
  for (const Straggler& straggler : run.stragglers) {
    text += fmt::format("{}rank {} ({}{}), {:.1f}% saved at the median", text.empty() ? "" : "; ", straggler.rank,
                        ClassName(straggler.what), WhereOf(straggler).empty() ? "" : ", " + WhereOf(straggler),
                        100 * straggler.saving_share);
  }
  return text.empty() ? "no rank stands out" : text;
}

json Pair(const std::optional<double>& a, const std::optional<double>& b) {
  const auto number = [](const std::optional<double>& value) {
    return value && std::isfinite(*value) ? json(*value) : json();
  };
  return {number(a), number(b)};
}

}  // namespace

std::string ComparisonText(const ReportedRun& a, const ReportedRun& b, const std::vector<KeyDifference>& keys) {
  const double step = a.summary.mean.step, change = b.summary.mean.step - step;  // of those that are seen
  std::string text = RunLine("A", a.summary) + RunLine("B", b.summary);
  for (const auto* run : {&a, &b}) {
    for (const std::string& problem : run->summary.problems) text += fmt::format("  ! {}\n", problem);
  }
  text += fmt::format("a step takes {:.2f} ms in A and {:.2f} in B: B takes {:.3f} times as long\n", Ms(a.summary.step),
                      Ms(b.summary.step), b.summary.step / a.summary.step);
  const auto partly = [](const ReportedRun& run) { return run.summary.seen < run.summary.steps; };
  text += fmt::format("\nwhat differs most, ms of a step{}, mean of ranks; the changes add up to that of the step\n",
                      partly(a) || partly(b) ? " whose kernels are seen" : "");
  text += fmt::format("  {:<28} {:>10} {:>10} {:>10} {:>12}\n", "", "A", "B", "B - A", "of A's step");
  const auto line = [&](const std::string& what, double before, double after) {
    text += fmt::format("  {:<28} {:>10.2f} {:>10.2f} {:>+10.2f} {:>+11.1f}%\n", what, Ms(before), Ms(after),
                        Ms(after - before), 100 * (after - before) / step);
  };
  Difference rest;
  size_t shown = 0;
  for (const Difference& difference : DifferencesOf(a.summary, b.summary)) {
    if (shown < kMostShown && std::abs(difference.change()) >= kLeastChange * step) {
      ++shown;
      line(difference.what, difference.a, difference.b);
    } else {
      rest.a += difference.a;
      rest.b += difference.b;
    }
  }
  line("what differs less", rest.a, rest.b);
  line("a step", step, step + change);
  text += fmt::format("\nslow by their own doing\n  A  {}\n  B  {}\n", BlamedIn(a.summary), BlamedIn(b.summary));
  text += fmt::format("\n  {:<34} {:>12} {:>12} {:>8}\n", "", "A", "B", "B / A");
  for (const Figure& figure : FiguresOf(a, b)) {
    const auto number = [](const std::optional<double>& value) {
      return value && std::isfinite(*value) ? fmt::format("{:.5g}", *value) : std::string("-");
    };
    const bool ratio = figure.a && figure.b && *figure.a > 0 && std::isfinite(*figure.b);
    text += fmt::format("  {:<34} {:>12} {:>12} {:>8}\n", figure.what, number(figure.a), number(figure.b),
                        ratio ? fmt::format("{:.3f}", *figure.b / *figure.a) : "");
  }
  if (!keys.empty()) text += fmt::format("\n  {:<34} {:>12} {:>12}\n", "keys that differ", "A", "B");
  for (const KeyDifference& key : keys) text += fmt::format("  {:<34} {:>12} {:>12}\n", key.key, key.a, key.b);
  return text;
}

std::string ComparisonJson(const ReportedRun& a, const ReportedRun& b, const std::vector<KeyDifference>& keys) {
  json result = {{"version", 1},
                 {"runs", {a.summary.folder, b.summary.folder}},
                 {"step", {a.summary.step, b.summary.step}},
                 {"differences", json::array()},
                 {"figures", json::array()},
                 {"keys", json::array()}};
  for (const Difference& difference : DifferencesOf(a.summary, b.summary)) {
    result["differences"].push_back(
        {{"what", difference.what}, {"seconds", {difference.a, difference.b}}, {"change", difference.change()}});
  }
  for (const Figure& figure : FiguresOf(a, b)) {
    result["figures"].push_back({{"what", figure.what}, {"values", Pair(figure.a, figure.b)}});
  }
  for (const KeyDifference& key : keys) {
    result["keys"].push_back({{"key", key.key}, {"values", {key.a, key.b}}});
  }
  return result.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace longspan
