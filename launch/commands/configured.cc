#include "launch/commands/configured.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

#include "launch/commands/option_values.h"
#include "launch/config/config.h"
#include "launch/config/rules.h"
#include "launch/job/agreement.h"
#include "launch/job/machine.h"
#include "launch/job/world.h"
#include "launch/version.h"

namespace longspan {
namespace {

struct GivenFlags {
  bool print_config = false;
  bool dry_run = false;
  int64_t world = 0;
};

}  // namespace

RunConfig Settle(RunConfig config, int ranks) {
  const Machine machine = ChooseMachine(config.runtime);
  const bool gpu = machine.device == DeviceKind::kGpu;
  config.runtime.device = gpu ? RuntimeDevice::kGpu : RuntimeDevice::kCpu;
  config.runtime.dtype = machine.dtype == DType::kBf16 ? RuntimeType::kBf16 : RuntimeType::kF32;
  if (!gpu) config.parallel.transport = Transport::kAuto;
  if (config.parallel.dp == 0 && ranks % config.parallel.cp == 0) config.parallel.dp = ranks / config.parallel.cp;
  return config;
}

namespace {

// What every rank must have alike. Paths may differ between nodes: of datasets and selections the contents are
// compared.
std::vector<Claim> Claims(const std::string& command, const RunConfig& config) {
  std::vector<Claim> claims = {{"program", Version(), ""}, {"command", command, ""}};
  for (const auto& [key, value] : ConfigValues(config)) {
    if (key != "output" && key != "data.train" && key != "data.validation" && key != "train.record_selection" &&
        key != "train.frozen_selection" && key != "train.initial_weights") {
      claims.push_back({key, value, ""});
    }
  }
  return claims;
}

}  // namespace

int RunOnRanks(const std::string& command, const RunConfig& given, const std::function<int(const RunConfig&)>& run,
               bool only_ranks) {
  const World world;
  const RunConfig config = Settle(given, world.size());
  RequireAgreement(*MakeMpiWorld(), ExitCode::kConfig, "the configuration", Claims(command, config));
  if (!only_ranks) RefuseProblems(Problems(given, world.size()));
  return run(config);
}

std::shared_ptr<GivenConfig> AddConfig(CLI::App& app) {
  const auto given = std::make_shared<GivenConfig>();
  app.add_option("--config", given->path, "Configuration, a textproto; without it the defaults")
      ->group("Configuration")
      ->type_name("FILE");
  app.add_option("overrides", given->overrides, "Single keys over the file, such as model.layers=2")
      ->group("Configuration")
      ->type_name("KEY=VALUE");
  return given;
}

std::function<int()> AddConfigured(CLI::App& app, std::function<int(const RunConfig&)> run,
                                   std::function<void(const RunConfig&, int64_t)> plan,
                                   std::function<bool()> only_ranks) {
  const auto config = AddConfig(app);
  const auto given = std::make_shared<GivenFlags>();
  app.add_flag("--print-config", given->print_config, "Print every value with its source, and end")
      ->group("Without running");
  if (plan) {
    CLI::Option* const dry_run = app.add_flag("--dry-run", given->dry_run, "Check everything, print the plan, and end");
    dry_run->group("Without running");
    app.add_option("--world", given->world, "Ranks to plan for (default: what parallel.cp and .dp say)")
        ->group("Without running")
        ->type_name("N")
        ->transform(WholeNumber(1, 1 << 20))
        ->needs(dry_run);
  }
  return [config, given, run, plan, only_ranks, command = app.get_name()] {
    const int64_t world = given->world > 0 || !given->dry_run ? given->world : AskLauncher().ranks;
    LoadedConfig loaded = ReadConfig(config->path, config->overrides, world);
    const bool any_model = only_ranks && only_ranks();
    if (any_model) loaded.problems.resize(loaded.problems.size() - loaded.broken_rules);
    const bool speaks = AskLauncher().rank == 0;  // for all, who would say the same
    if (given->print_config && speaks) fmt::print("{}", SourceTable(loaded));
    RefuseProblems(loaded.problems);
    if (given->dry_run && speaks) plan(loaded.config, world);
    if (given->print_config || given->dry_run) return 0;
    return RunOnRanks(command, loaded.config, run, any_model);
  };
}

}  // namespace longspan
