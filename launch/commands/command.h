// Command: one task of `longspan`. Each is a file of this folder that defines one, and a name in the list of
// launch/main.cc.
#pragma once

#include <functional>
#include <vector>

namespace CLI {  // NOLINT(readability-identifier-naming): CLI11's
class App;
}

namespace longspan {

struct Command {
  const char* name;
  const char* summary;  // in the list of commands
  const char* footer;   // of its help, with examples
  // Adds the command's options to `app`. What it returns runs the command as these were given; it returns the exit code
  // or throws Error.
  std::function<int()> (*add)(CLI::App& app);
};

// Runs the command that the command line names, or prints help or the version, and returns the exit code. A wrong
// command line is an Error (usage) with a hint; errors end all ranks (launch/job/world.h).
int RunProgram(const std::vector<Command>& commands, int argc, const char* const* argv);

}  // namespace longspan
