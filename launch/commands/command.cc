#include "launch/commands/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "launch/config/nearest_name.h"
#include "launch/job/world.h"
#include "launch/version.h"
#include "runtime/error.h"

namespace longspan {
namespace {

constexpr const char* kFooter = R"(
Examples:
  longspan data --output data/headers --include '*.h' /usr/include
  longspan train --config configs/quickstart.textproto --dry-run
  mpirun -np 4 longspan train --config configs/quickstart.textproto train.steps=50

Exit codes, the same on every rank:
   0  done                              75  stopped in good order, resumable
  64  wrong command line                76  communication stalled
  65  bad data, case or checkpoint      78  wrong configuration
  70  a rank failed                     79  loss or gradient not finite
  74  a file could not be read or written

Help on one command: longspan COMMAND --help)";

// Options of the program itself end it, so a command comes first.
void RefuseUnknown(const std::vector<Command>& commands, int argc, const char* const* argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  const std::string given = argv[1];
  std::vector<std::string> names;
  for (const Command& command : commands) names.emplace_back(command.name);
  if (std::find(names.begin(), names.end(), given) != names.end()) return;
  throw Error(ExitCode::kUsage, fmt::format("no such command: {}; did you mean {}?\nhint: longspan --help", given,
                                            NearestName(given, names)));
}

// What to try instead, for the mistakes that are easily made.
std::string Hint(const CLI::App& app, int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t dot = argument.find('.'), equal = argument.find('=');
    if (argument.starts_with("--") && dot < equal && equal != std::string::npos) {
      return fmt::format("keys are written without dashes: {}", argument.substr(2));
    }
  }
  const auto commands = app.get_subcommands();
  return fmt::format("longspan {}--help", commands.empty() ? "" : commands[0]->get_name() + " ");
}

int Run(const std::vector<Command>& commands, int argc, const char* const* argv) {
  CLI::App app("Longspan trains transformers with Native Sparse Attention on long sequences, split over MPI ranks.",
               "longspan");
  app.set_version_flag("--version", Version());
  app.require_subcommand(0, 1);
  app.footer(kFooter);
  std::function<int()> run;  // of the command given
  for (const Command& command : commands) {
    CLI::App* const added = app.add_subcommand(command.name, command.summary);
    added->footer(command.footer);
    added->callback([&run, action = command.add(*added)] { run = action; });
  }
  RefuseUnknown(commands, argc, argv);
  try {
    app.parse(argc, argv);
    if (!run) throw CLI::CallForHelp();
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const CLI::CallForVersion&) {
    fmt::print("{}\n", Version());
    return 0;
  } catch (const CLI::ParseError& error) {
    throw Error(ExitCode::kUsage, fmt::format("{}\nhint: {}", error.what(), Hint(app, argc, argv)));
  }
  return run();
}

}  // namespace

int RunProgram(const std::vector<Command>& commands, int argc, const char* const* argv) {
  return RunAndReport([&] { return Run(commands, argc, argv); });
}

}  // namespace longspan
