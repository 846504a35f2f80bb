// What commands share that a configuration drives.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "launch/commands/command.h"
#include "launch/config/run_config.h"

namespace longspan {

// Which configuration was given: --config and KEY=VALUE.
struct GivenConfig {
  std::string path;
  std::vector<std::string> overrides;  // key.path=value
};
// Adds the two to `app`, which fills what is returned.
std::shared_ptr<GivenConfig> AddConfig(CLI::App& app);

// Adds --config, KEY=VALUE and --print-config to `app` and returns what runs the command (Command::add): it reads the
// configuration and calls `run` with MPI running, once all ranks have the same one, all rules hold, and it fits the
// ranks. What the ranks settle (parallel.dp = 0, runtime.device and runtime.dtype = AUTO) is settled in `run`'s.
//
// `plan` adds --dry-run, which calls it on rank 0 for --world ranks (0 = what parallel.cp and .dp say); it prints, and
// throws Error when the run could not be. Neither that nor --print-config needs MPI or a GPU.
//
// Where `only_ranks` says so, model, data and training need not fit the ranks: `run` does not use them.
std::function<int()> AddConfigured(CLI::App& app, std::function<int(const RunConfig& config)> run,
                                   std::function<void(const RunConfig& config, int64_t world)> plan = nullptr,
                                   std::function<bool()> only_ranks = nullptr);

// Runs `run` with MPI running, as AddConfigured does, with a configuration without problems of its own. `command` is
// what ranks must have alike besides. `only_ranks`: as there.
int RunOnRanks(const std::string& command, const RunConfig& given, const std::function<int(const RunConfig&)>& run,
               bool only_ranks = false);

// With what this machine and the number of ranks decide.
RunConfig Settle(RunConfig config, int ranks);

}  // namespace longspan
