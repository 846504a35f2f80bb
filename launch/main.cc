// longspan: one binary, a subcommand for each task. Help, version, --print-config and --dry-run touch neither MPI nor a
// GPU.
#include <fmt/format.h>

#include "launch/commands/attention.h"
#include "launch/commands/command_line.h"
#include "launch/commands/data.h"
#include "launch/commands/plan.h"
#include "launch/commands/verify.h"
#include "launch/config/config.h"
#include "launch/job/world.h"
#include "launch/train/trainer.h"
#include "runtime/error.h"

namespace longspan {
namespace {

// Reads the configuration; `run` gets it once MPI runs and the world fits.
template <typename Run>
int Configured(const ConfigOptions& options, Run run) {
  const LoadedConfig loaded = ReadConfig(options.path, options.overrides, options.world);
  if (options.print_config) fmt::print("{}", SourceTable(loaded));
  RefuseProblems(loaded.problems);
  if (options.dry_run) fmt::print("{}", DescribeRun(loaded.config, options.world));
  if (options.print_config || options.dry_run) return 0;
  const World world;
  RefuseProblems(Problems(loaded.config, world.size()));
  return run(loaded.config);
}

int Run(int argc, char** argv) {
  using Command = CommandLine::Command;
  const CommandLine line = ParseCommandLine(argc, argv);
  switch (line.command) {
    case Command::kText:
      fmt::print("{}", line.text);
      return 0;
    case Command::kTrain:
      return Configured(line.config, [](const RunConfig& config) { return RunTrain({config}); });
    case Command::kVerify:
      return Configured(line.config, [](const RunConfig& config) { return RunVerify({config}); });
    case Command::kAttention: {
      const World world;
      return RunAttention(line.attention);
    }
    case Command::kData:
      return RunData(line.data);
    case Command::kDataInfo:
      return RunDataInfo(line.data_path);
  }
  return static_cast<int>(ExitCode::kUsage);
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) {
  return longspan::RunAndReport([&] { return longspan::Run(argc, argv); });
}
