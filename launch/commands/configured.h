// What commands share that a configuration drives.
#pragma once

#include <functional>
#include <string>

#include "launch/commands/command.h"
#include "launch/config/run_config.h"

namespace longspan {

// Adds --config, KEY=VALUE and --print-config to `app` and returns what runs the command (Command::add): it reads the
// configuration and calls `run` with MPI running, once all rules hold and the configuration fits the ranks. `plan` adds
// --dry-run, which prints it for --world ranks (0 = what parallel.cp and .dp say). Printing needs neither MPI nor a
// GPU.
std::function<int()> AddConfigured(CLI::App& app, int (*run)(const RunConfig& config),
                                   std::string (*plan)(const RunConfig& config, int64_t world) = nullptr);

}  // namespace longspan
