#include "launch/commands/configured.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

#include "launch/commands/option_values.h"
#include "launch/config/config.h"
#include "launch/config/rules.h"
#include "launch/job/world.h"

namespace longspan {
namespace {

struct Given {
  std::string path;
  std::vector<std::string> overrides;  // key.path=value
  bool print_config = false;
  bool dry_run = false;
  int64_t world = 0;
};

}  // namespace

std::function<int()> AddConfigured(CLI::App& app, int (*run)(const RunConfig&),
                                   std::string (*plan)(const RunConfig&, int64_t)) {
  const auto given = std::make_shared<Given>();
  app.add_option("--config", given->path, "Configuration, a textproto; without it the defaults")
      ->group("Configuration")
      ->type_name("FILE");
  app.add_option("overrides", given->overrides, "Single keys over the file, such as model.layers=2")
      ->group("Configuration")
      ->type_name("KEY=VALUE");
  app.add_flag("--print-config", given->print_config, "Print every value with its source, and end")
      ->group("Without running");
  if (plan != nullptr) {
    CLI::Option* const dry_run = app.add_flag("--dry-run", given->dry_run, "Check everything, print the plan, and end");
    dry_run->group("Without running");
    app.add_option("--world", given->world, "Ranks to plan for (default: what parallel.cp and .dp say)")
        ->group("Without running")
        ->type_name("N")
        ->transform(WholeNumber(1, 1 << 20))
        ->needs(dry_run);
  }
  return [given, run, plan] {
    const LoadedConfig loaded = ReadConfig(given->path, given->overrides, given->world);
    if (given->print_config) fmt::print("{}", SourceTable(loaded));
    RefuseProblems(loaded.problems);
    if (given->dry_run) fmt::print("{}", plan(loaded.config, given->world));
    if (given->print_config || given->dry_run) return 0;
    const World world;
    RefuseProblems(Problems(loaded.config, world.size()));
    return run(loaded.config);
  };
}

}  // namespace longspan
