// The command line of `longspan`: subcommands, options, help. The only part that knows CLI11.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/commands/data.h"
#include "launch/commands/options.h"

namespace longspan {

// How a command is configured: by a file, and keys over it.
struct ConfigOptions {
  std::string path;
  std::vector<std::string> overrides;  // key.path=value
  bool print_config = false;           // print every value with its source, and end
  bool dry_run = false;                // check, print the plan, and end
  int64_t world = 0;                   // ranks to plan for; 0 = what parallel says
};

struct CommandLine {
  enum class Command { kText, kTrain, kVerify, kAttention, kData, kDataInfo };
  Command command = Command::kText;
  std::string text;      // kText: help or version, to be printed
  ConfigOptions config;  // kTrain, kVerify
  AttentionOptions attention;
  DataOptions data;
  std::string data_path;  // kDataInfo
};

// Throws Error (usage) with a hint on a wrong command line.
CommandLine ParseCommandLine(int argc, const char* const* argv);

}  // namespace longspan
