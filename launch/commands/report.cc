// `longspan report`.
#include "launch/report/report.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/planned_run.h"
#include "launch/config/config.h"
#include "launch/report/chrome_trace.h"
#include "launch/report/compare.h"
#include "launch/report/page.h"
#include "launch/report/scaling.h"
#include "launch/report/tensorboard.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

struct GivenReport {
  std::string run, compare, trace, tensorboard, output;
  std::vector<std::string> scaling;
  PlanRates rates;
  bool json = false, html = false;
};

// One that has steps.
ReportedRun ReadMeasured(const std::string& folder) {
  ReportedRun run = ReadRun(folder);
  if (run.summary.steps == 0) Fail(ExitCode::kData, "{}: no training step that all ranks have recorded yet", folder);
  return run;
}

std::map<std::string, std::string> KeysOf(const std::string& folder) {
  const LoadedConfig loaded = ReadConfig(folder + "/config.textproto", {});
  std::map<std::string, std::string> keys;
  for (const auto& [key, value] : ConfigValues(loaded.config)) keys[key] = value;
  return keys;
}

std::vector<KeyDifference> KeyDifferences(const std::string& a, const std::string& b) {
  std::vector<KeyDifference> differences;
  std::map<std::string, std::string> of_b = KeysOf(b);
  for (const auto& [key, value] : KeysOf(a)) {
    if (of_b[key] != value) differences.push_back({key, value, of_b[key]});
  }
  return differences;
}

int Compare(const GivenReport& given) {
  const ReportedRun a = ReadMeasured(given.run), b = ReadMeasured(given.compare);
  const std::vector<KeyDifference> keys = KeyDifferences(given.run, given.compare);
  fmt::print("{}", given.json ? ComparisonJson(a, b, keys) : ComparisonText(a, b, keys));
  return 0;
}

int Scaling(const GivenReport& given) {
  std::vector<ReportedRun> runs;
  for (const std::string& folder : given.scaling) {
    runs.push_back(ReadMeasured(folder));
    runs.back().data = {};
  }
  if (given.html) {
    if (given.output.empty()) Fail(ExitCode::kUsage, "--scaling --html: expected --output FILE.html");
    const std::string page = ScalingPage(ScalingJson(runs));
    OutputFile file(given.output);
    file.Write(page.data(), std::ssize(page));
    file.Commit();
    fmt::print("{}\n", given.output);
    return 0;
  }
  fmt::print("{}", given.json ? ScalingJson(runs) : ScalingText(runs));
  return 0;
}

int Report(const GivenReport& given) {
  if (given.run.empty() == given.scaling.empty()) {
    Fail(ExitCode::kUsage, "expected one run's folder, or --scaling and several");
  }
  if (!given.scaling.empty()) return Scaling(given);
  if (!given.compare.empty()) return Compare(given);
  if (!given.trace.empty()) {
    fmt::print("{}\n", WriteChromeTrace(ReadProfiles(given.run), given.trace));
    return 0;
  }
  const ReportedRun run = ReadPlannedRun(given.run, given.rates);
  if (!given.tensorboard.empty()) {
    fmt::print("{}\n", WriteTensorBoard(run, given.tensorboard));
    return 0;
  }
  if (given.html) {
    fmt::print("{}\n", WriteReportPage(run, given.output));
    return 0;
  }
  fmt::print("{}", given.json ? ReportJson(run.summary) : ReportText(run.summary));
  return 0;
}

std::function<int()> AddReport(CLI::App& app) {
  const auto given = std::make_shared<GivenReport>();
  app.add_option("run", given->run, "A run's folder")->type_name("RUN");
  CLI::Option* const json = app.add_flag("--json", given->json, "Print the numbers as JSON");
  CLI::Option* const html =
      app.add_flag("--html", given->html, "Write them with charts to RUN/profile/report.html")->excludes(json);
  app.add_option("--output", given->output, "Where --html writes instead")->type_name("FILE.html")->needs(html);
  CLI::Option* const trace =
      app.add_option("--trace", given->trace, "Write the steps in full detail as a timeline of all ranks")
          ->type_name("FILE.json")
          ->excludes(json)
          ->excludes(html);
  app.add_option("--tensorboard", given->tensorboard,
                 "Write the metrics as an event file of TensorBoard into this folder")
      ->type_name("DIR")
      ->excludes(json)
      ->excludes(html)
      ->excludes(trace);
  CLI::Option* const compare = app.add_option("--compare", given->compare, "Set this run beside it")
                                   ->type_name("RUN2")
                                   ->excludes(html)
                                   ->excludes(trace);
  app.add_option("--scaling", given->scaling, "How throughput grows over runs on different numbers of ranks")
      ->type_name("RUN")
      ->excludes(compare)
      ->excludes(trace);
  CLI::Option* const rates = app.add_option("--rates", given->rates.path,
                                            "Plan the step's time, too: what longspan bench nsa --json wrote there")
                                 ->type_name("FILE");
  app.add_option("--link-gbps", given->rates.link_gbps, "GB/s that a rank receives, for that plan")
      ->type_name("GB/s")
      ->check(CLI::PositiveNumber.description(""))
      ->needs(rates);
  return [given] { return Report(*given); };
}

}  // namespace

extern const Command kReport = {"report", "Show where the time of a run went, while it goes on or later", R"(
A run writes profile/rankNNNNN.pb for each rank every few seconds (keys profile.*), and profile/report.txt, report.json and
report.html when it ends; the last needs a program built with Chart.js (libjs-chart.js), here or elsewhere. The report says,
of the training steps:
  the largest costs, and what to try
  which ranks are slow by their own doing: in which stage, since which step, and what steps would save were they like the
  others. Classes: compute, throttled (its GPU's clocks are held down), host (its thread did not run), data (its loader),
  link
  ranks: own time is the step without transfers. waiting is for the last rank to begin a transfer, moving is the transfer
  itself as far as kernels do not hide it; awaited is how long others waited for this rank
  stages of the model's own work over ranks; transfers by stage with their bandwidth
  selection: what was fetched, and of a recorded one (train.record_selection) where blocks lie and what neighbours share
  memory by use, and what longspan plan says of the run beside what was measured
  and where the rest of the time went: start, data, saves, evaluation, restarts, steps done again.
A missing or broken file is said; the rest is reported. The files' format: launch/report/profile.proto; that of the JSON:
launch/report/report.h, compare.h, scaling.h. The timeline opens in ui.perfetto.dev and chrome://tracing.

Examples:
  longspan report runs/quickstart
  longspan report runs/quickstart --compare runs/contiguous
  longspan report --scaling runs/cp1 runs/cp2 runs/cp4 --html --output scaling.html
  longspan report runs/quickstart --trace trace.json)",
                                AddReport};

}  // namespace longspan
