#include "launch/report/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/error.h"

namespace longspan {
namespace {

using nlohmann::json;

constexpr size_t kMostPoints = 400;       // of a curve
constexpr size_t kMostCharted = 8;        // of a chart that has each rank's steps
constexpr double kLeastGap = 1.0 / 4000;  // of a step, between spans that are shown apart

// Means of stretches; null where all of one is NaN.
json Curve(const std::vector<double>& values) {
  json curve = json::array();
  const size_t points = std::min(values.size(), kMostPoints);
  for (size_t i = 0; i < points; ++i) {
    double sum = 0, count = 0;
    for (size_t k = i * values.size() / points; k < (i + 1) * values.size() / points; ++k) {
      if (!std::isfinite(values[k])) continue;
      sum += values[k];
      count += 1;
    }
    curve.push_back(count > 0 ? json(sum / count) : json());
  }
  return curve;
}

json MetricsJson(const RunMetrics& metrics) {
  json result;
  const auto add = [&](const char* name, const auto& value) {
    std::vector<double> values;
    for (const StepMetric& step : metrics.steps) values.push_back(static_cast<double>(value(step)));
    result[name] = Curve(values);
  };
  add("step", [](const StepMetric& m) { return m.step; });
  add("loss", [](const StepMetric& m) { return m.loss; });
  add("tokens_per_second", [](const StepMetric& m) { return m.tokens_per_second; });
  add("memory", [](const StepMetric& m) { return m.memory; });
  add("coverage", [](const StepMetric& m) { return m.coverage; });
  add("borrowed", [](const StepMetric& m) { return m.borrowed; });
  result["evaluations"] = json::array();
  for (const auto& evaluation : metrics.evaluations) {
    if (std::isfinite(evaluation.loss)) result["evaluations"].push_back({evaluation.step, evaluation.loss});
  }
  result["positions"] = json::array();
  for (const auto& [begin, end, loss] : metrics.positions) result["positions"].push_back({begin, end, loss});
  return result;
}

// Those that are named as slow, then those with the most own time; ascending.
std::vector<size_t> OutstandingRanks(const Summary& summary) {
  std::vector<size_t> order(summary.ranks.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto named = [&](size_t i) {
    return std::any_of(summary.stragglers.begin(), summary.stragglers.end(),
                       [&](const Straggler& straggler) { return straggler.rank == summary.ranks[i].rank; });
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(named(a), summary.ranks[a].own()) > std::pair(named(b), summary.ranks[b].own());
  });
  order.resize(std::min(order.size(), kMostCharted));
  std::sort(order.begin(), order.end());
  return order;
}

json OwnTimes(const StepTable& steps, const Summary& summary, const std::vector<size_t>& ranks) {
  json result = {{"step", json::array()}, {"ranks", json::array()}};
  for (const size_t r : ranks) {
    std::vector<double> numbers, own;
    for (const ProfilePeriod* step : steps[r]) {
      numbers.push_back(static_cast<double>(step->step));
      own.push_back(RowOf(*step).own());
    }
    result["step"] = Curve(numbers);
    result["ranks"].push_back({{"rank", summary.ranks[r].rank}, {"seconds", Curve(own)}});
  }
  return result;
}

// Of those ranks whose GPU was read.
json Clocks(const ReportedRun& run, const std::vector<size_t>& ranks) {
  json result = json::array();
  for (const size_t r : ranks) {
    std::vector<double> seconds, clocks;
    for (const ProfileGpu& gpu : run.data.ranks[r].gpu.list) {
      seconds.push_back(gpu.first.at);
      clocks.push_back(gpu.sm_clock);
    }
    if (clocks.empty()) continue;
    result.push_back({{"rank", run.summary.ranks[r].rank}, {"seconds", Curve(seconds)}, {"mhz", Curve(clocks)}});
  }
  return result;
}

// The spans of one rank's step, one after another as they are to be drawn.
class Spans {
 public:
  Spans(int rank, const ProfilePeriod& step, double begin) : rank_(rank), step_(step), begin_(begin) {}

  void AddTo(json* list) {
    std::vector<const ProfileSpan*> spans;
    for (const ProfileSpan& span : step_.spans) spans.push_back(&span);
    std::stable_sort(spans.begin(), spans.end(), [](const auto* a, const auto* b) { return a->begin < b->begin; });
    for (const ProfileSpan* span : spans) Add(*span);
    for (auto& [beside, last] : last_) drawn_.push_back(last);
    for (const json& span : drawn_) list->push_back(span);
  }

 private:
  void Add(const ProfileSpan& span) {
    const bool beside = span.kind == proto::BESIDE || span.kind == proto::TRANSFER_BESIDE;
    const std::string stage = StageName(span.stage, span.pass, span.layer);
    if (span.kind == proto::TRANSFER || span.kind == proto::TRANSFER_BESIDE) {
      const ProfileTransfer* const transfer = TransferOf(step_, span);
      const double wait = transfer != nullptr ? transfer->wait : 0, bytes = transfer != nullptr ? transfer->bytes : 0;
      const std::string name = stage + ", " + span.name;
      if (wait > 0) Draw(beside, "waiting", name, span.begin, wait, 0);
      Draw(beside, "moving", name, span.begin + wait, span.seconds - wait, bytes);
    } else {
      const bool waits = span.kind == proto::WAIT || span.kind == proto::STALL;
      Draw(beside, waits ? "data" : "work", stage, span.begin, span.seconds, 0);
    }
  }

  void Draw(bool beside, const char* what, const std::string& name, double begin, double seconds, double bytes) {
    begin -= begin_;
    json& last = last_[beside];
    if (!last.is_null()) {
      const double end = last["begin"].get<double>() + last["seconds"].get<double>();
      if (last["what"] == what && last["name"] == name && begin - end < kLeastGap * step_.seconds) {
        last["seconds"] = begin + seconds - last["begin"].get<double>();
        last["bytes"] = last["bytes"].get<double>() + bytes;
        return;
      }
      drawn_.push_back(last);
    }
    last = {{"rank", rank_},  {"beside", beside},   {"what", what},  {"name", name},
            {"begin", begin}, {"seconds", seconds}, {"bytes", bytes}};
  }

  const int rank_;
  const ProfilePeriod& step_;
  const double begin_;
  std::map<bool, json> last_;  // by beside
  std::vector<json> drawn_;
};

json Timeline(const StepTable& steps, const Summary& summary, const std::vector<size_t>& ranks) {
  for (size_t i = steps[0].size(); i-- > 0;) {
    const bool full = std::all_of(ranks.begin(), ranks.end(), [&](size_t r) { return !steps[r][i]->spans.empty(); });
    if (!full) continue;
    double begin = 1e300;
    for (const size_t r : ranks) begin = std::min(begin, steps[r][i]->begin);
    json timeline = {{"step", steps[0][i]->step}, {"seconds", steps[0][i]->seconds}, {"spans", json::array()}};
    for (const size_t r : ranks) Spans(summary.ranks[r].rank, *steps[r][i], begin).AddTo(&timeline["spans"]);
    return timeline;
  }
  return nullptr;
}

std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

// The page with this JSON as its data, none of whose texts can end the element that holds it.
std::string FillPage(const char* page, const std::string& data) {
  if (page == nullptr) {
    Fail(ExitCode::kIo,
         "this program was built without Chart.js: install libjs-chart.js and build again, or run longspan report "
         "--html "
         "on this folder with a program that has it");
  }
  constexpr const char* kPlace = "@DATA@";
  const char* const place = std::strstr(page, kPlace);
  LS_CHECK(place != nullptr, "a page of launch/report/page has no {}", kPlace);
  std::string text(page, place);
  // Only texts within JSON have this character.
  for (const char c : data) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text + (place + std::strlen(kPlace));
}

}  // namespace

bool HasPages() { return ReportTemplate() != nullptr; }

std::string ScalingPage(const std::string& json) { return FillPage(ScalingTemplate(), json); }

std::string ReportPage(const ReportedRun& run) {
  json own, timeline, clocks = json::array();
  const StepTable all = CommonSteps(run.data);
  if (!all[0].empty()) {
    const StepTable steps = SeenSteps(all);
    const std::vector<size_t> ranks = OutstandingRanks(run.summary);
    own = OwnTimes(steps, run.summary, ranks);
    timeline = Timeline(steps, run.summary, ranks);
    clocks = Clocks(run, ranks);
  }
  return FillPage(ReportTemplate(), fmt::format(R"({{"report":{},"metrics":{},"own":{},"timeline":{},"clocks":{}}})",
                                                ReportJson(run.summary), Dump(MetricsJson(run.metrics)), Dump(own),
                                                Dump(timeline), Dump(clocks)));
}

}  // namespace longspan
