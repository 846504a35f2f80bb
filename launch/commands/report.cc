// `longspan report`.
#include "launch/report/report.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "launch/commands/command.h"
#include "launch/report/chrome_trace.h"

namespace longspan {
namespace {

struct Given {
  std::string run, trace, output;
  bool json = false, html = false;
};

int Report(const Given& given) {
  if (given.html) {
    fmt::print("{}\n", WriteReportPage(given.run, given.output));
    return 0;
  }
  const ProfileData data = ReadProfiles(given.run);
  if (!given.trace.empty()) {
    fmt::print("{}\n", WriteChromeTrace(data, given.trace));
    return 0;
  }
  const Summary summary = Summarize(data);
  fmt::print("{}", given.json ? ReportJson(summary) : ReportText(summary));
  return 0;
}

std::function<int()> AddReport(CLI::App& app) {
  const auto given = std::make_shared<Given>();
  app.add_option("run", given->run, "A run's folder")->required()->type_name("RUN");
  CLI::Option* const json = app.add_flag("--json", given->json, "Print the numbers as JSON");
  CLI::Option* const html =
      app.add_flag("--html", given->html, "Write them with charts to RUN/profile/report.html")->excludes(json);
  app.add_option("--output", given->output, "Where --html writes instead")->type_name("FILE.html")->needs(html);
  app.add_option("--trace", given->trace, "Write the steps in full detail as a timeline of all ranks")
      ->type_name("FILE.json")
      ->excludes(json)
      ->excludes(html);
  return [given] { return Report(*given); };
}

}  // namespace

extern const Command kReport = {"report", "Show where the time of a run went, while it goes on or later", R"(
A run writes profile/rankNNNNN.pb for each rank every few seconds (keys profile.*), and profile/report.txt, report.json and
report.html when it ends; the last needs a program built with Chart.js (libjs-chart.js), here or elsewhere. The report says, of the training steps:
  the largest costs, and what to try
  which ranks are slow by their own doing: in which stage, since which step, and what steps would save were they like the
  others. Classes: compute, host (its thread did not run), data (its loader), link
  ranks: own time is the step without transfers. waiting is for the last rank to begin a transfer, moving is the transfer
  itself as far as kernels do not hide it; awaited is how long others waited for this rank
  stages of the model's own work over ranks; transfers by stage with their bandwidth
  and where the rest of the time went: start, data, saves, evaluation, restarts, steps done again.
A missing or broken file is said; the rest is reported. The files' format: launch/report/profile.proto; that of the JSON:
launch/report/report.h. The timeline opens in ui.perfetto.dev and chrome://tracing.

Examples:
  longspan report runs/quickstart
  longspan report runs/quickstart --trace trace.json)",
                                AddReport};

}  // namespace longspan
