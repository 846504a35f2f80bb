#include "launch/report/report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "launch/report/page.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

using nlohmann::json;

json ToJson(const RankRow& row) {
  return {{"step", row.step},       {"work", row.work},   {"waiting", row.waiting}, {"moving", row.moving},
          {"data", row.data},       {"other", row.other}, {"hidden", row.hidden},   {"own", row.own()},
          {"awaited", row.awaited}, {"cpu", row.cpu}};
}

json ToJson(const StageRow& row) {
  const Spread& seconds = row.seconds;
  return {{"stage", row.stage},
          {"pass", PassName(row.pass)},
          {"layer", row.layer},
          {"seconds",
           {{"min", seconds.min},
            {"median", seconds.median},
            {"max", seconds.max},
            {"mean", seconds.mean},
            {"imbalance", seconds.imbalance()},
            {"slowest", seconds.slowest},
            {"by_rank", seconds.by_rank}}},
          {"flops", row.flops},
          {"bytes", row.bytes}};
}

json ToJson(const TransferRow& row) {
  return {{"stage", row.stage},
          {"pass", PassName(row.pass)},
          {"name", row.name},
          {"beside", row.beside},
          {"calls", row.calls},
          {"bytes", row.bytes},
          {"far", row.far},
          {"waiting", row.waiting},
          {"moving", row.moving},
          {"exposed", row.exposed},
          {"bus_bandwidth", row.moving > 0 ? json(row.bytes / row.moving) : json(nullptr)}};
}

json ToJson(const MemoryOfUse& row) {
  return {{"use", row.use}, {"host", row.host}, {"min", row.min}, {"max", row.max}};
}

json ToJson(const PlanRow& row) {
  return {{"what", row.what}, {"unit", row.unit}, {"planned", row.planned}, {"measured", row.measured}};
}

json ToJson(const SelectionMetric& row) {
  return {{"layer", row.layer},
          {"local", row.local},
          {"halo", row.halo},
          {"remote", row.remote},
          {"distinct_blocks", row.distinct_blocks},
          {"distinct_share", row.distinct_share},
          {"jaccard", row.jaccard},
          {"hottest", row.hottest},
          {"union_2", row.union2},
          {"union_4", row.union4},
          {"union_8", row.union8}};
}

json ToJson(const LinkRow& row) {
  return {{"from", row.from}, {"to", row.to}, {"newest", row.newest}, {"best", row.best}};
}

json ToJson(const GpuRow& row) {
  return {{"rank", row.rank},
          {"readings", row.readings},
          {"sm_clock", row.sm_clock},
          {"lowest", row.lowest},
          {"most_sm_clock", row.most_sm_clock},
          {"memory_clock", row.memory_clock},
          {"power", row.power},
          {"power_limit", row.power_limit},
          {"temperature", row.temperature},
          {"held", row.held},
          {"held_by", row.held_by},
          {"corrected", row.corrected},
          {"uncorrected", row.uncorrected}};
}

json ToJson(const Straggler& straggler) {
  return {{"rank", straggler.rank},
          {"class", ClassName(straggler.what)},
          {"first_step", straggler.first_step},
          {"last_step", straggler.last_step},
          {"since_start", straggler.since_start},
          {"to_end", straggler.to_end},
          {"single", straggler.single},
          {"excess", straggler.excess},
          {"ratio", straggler.ratio},
          {"saving", straggler.saving},
          {"saving_share", straggler.saving_share},
          {"stage", straggler.stage},
          {"pass", PassName(straggler.pass)},
          {"layer", straggler.layer},
          {"stage_share", straggler.stage_share},
          {"link", straggler.link},
          {"held_by", straggler.held_by}};
}

json ToJson(const Ledger& ledger) {
  return {{"total", ledger.total},
          {"startup", ledger.startup},
          {"training", ledger.training},
          {"data", ledger.data},
          {"checkpoint", ledger.checkpoint},
          {"evaluation", ledger.evaluation},
          {"lost", ledger.lost},
          {"lost_steps", ledger.lost_steps},
          {"stopped", ledger.stopped},
          {"restarts", ledger.restarts},
          {"other", ledger.other}};
}

json ToJson(const Finding& cost) { return {{"seconds", cost.seconds}, {"what", cost.what}, {"advice", cost.advice}}; }

template <typename Row>
json ListOf(const std::vector<Row>& rows) {
  json list = json::array();
  for (const Row& row : rows) list.push_back(ToJson(row));
  return list;
}

void AddSelection(const RunMetrics& metrics, Summary* summary) {
  summary->selection_step = metrics.selection_step;
  summary->selection = metrics.selection;
  double count = 0;
  for (const StepMetric& step : metrics.steps) {
    if (!std::isfinite(step.coverage) || !std::isfinite(step.borrowed)) continue;
    summary->coverage += step.coverage;
    summary->borrowed += step.borrowed;
    count += 1;
  }
  summary->coverage /= std::max(1.0, count);
  summary->borrowed /= std::max(1.0, count);
}

void WriteText(const std::string& path, const std::string& text) {
  OutputFile file(path);
  file.Write(text.data(), std::ssize(text));
  file.Commit();
}

}  // namespace

std::string ReportJson(const Summary& summary) {
  const proto::Header& header = summary.header;
  json report = {{"version", 1},
                 {"run", summary.folder},
                 {"program", header.version()},
                 {"time", header.time()},
                 {"running", !summary.ended},
                 {"ranks", summary.expected},
                 {"read", summary.ranks.size()},
                 {"problems", summary.problems},
                 {"clock_error", summary.clock_error},
                 {"dp", header.dp_size()},
                 {"cp", header.cp_size()},
                 {"device", header.device()}};
  report["steps"] = {{"first", summary.first_step}, {"last", summary.last_step}, {"count", summary.steps},
                     {"seen", summary.seen},        {"mean", summary.step},      {"median", summary.step_median}};
  const double rate = summary.step > 0 ? header.step_flops() / summary.step : 0;
  report["flops"] = {{"executed", header.step_flops()},
                     {"per_second", rate},
                     {"peak_share", header.peak_flops() > 0 ? rate / header.peak_flops() : 0},
                     {"dense_equivalent", summary.dense_flops > 0 ? json(summary.dense_flops) : json()}};
  report["breakdown"] = ToJson(summary.mean);
  report["rank"] = json::array();
  for (const RankRow& row : summary.ranks) {
    json entry = ToJson(row);
    entry["rank"] = row.rank;
    entry["host"] = row.host;
    report["rank"].push_back(entry);
  }
  report["stages"] = ListOf(summary.stages);
  report["layers"] = ListOf(summary.layers);
  report["transfers"] = ListOf(summary.transfers);
  report["links"] = ListOf(summary.links);
  report["selection"] = {{"coverage", summary.coverage},
                         {"borrowed", summary.borrowed},
                         {"step", summary.selection_step},
                         {"layers", ListOf(summary.selection)}};
  report["gpus"] = ListOf(summary.gpus);
  report["memory"] = ListOf(summary.memory);
  report["plan"] = ListOf(summary.plan);
  report["stragglers"] = ListOf(summary.stragglers);
  report["ledger"] = ToJson(summary.ledger);
  report["costs"] = ListOf(summary.costs);
  return report.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

ReportedRun ReadRun(const std::string& folder) {
  ReportedRun run{.data = ReadProfiles(folder), .summary = {}, .metrics = ReadMetrics(folder)};
  run.summary = Summarize(run.data);
  AddSelection(run.metrics, &run.summary);
  return run;
}

void AddPlan(const PlannedRun& plan, ReportedRun* run) {
  run->summary.plan = BesidePlan(run->data, plan);
  run->summary.dense_flops = plan.dense_flops;
}

std::string WriteReport(const ReportedRun& run) {
  const std::string folder = run.data.folder + "/profile/", text = ReportText(run.summary);
  WriteText(folder + "report.txt", text);
  WriteText(folder + "report.json", ReportJson(run.summary));
  if (!HasPages()) return text + "\nno report.html: this program was built without libjs-chart.js\n";
  return text + fmt::format("\nwith charts: {}\n", WriteReportPage(run, ""));
}

std::string WriteReportPage(const ReportedRun& run, const std::string& path) {
  const std::string page = path.empty() ? run.data.folder + "/profile/report.html" : path;
  WriteText(page, ReportPage(run));
  return page;
}

}  // namespace longspan
