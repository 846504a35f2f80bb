// Runs the program `longspan` as a user would. LONGSPAN_PROGRAM and LONGSPAN_MPIEXEC are set by CMake.
#pragma once

#include <fmt/format.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>

#include "tests/support/files.h"

namespace longspan {

// The exit code of `longspan ARGUMENTS` on `ranks` ranks; `said` gets what it printed. `folder` holds the output
// meanwhile.
inline int RunProgram(const TempFolder& folder, int ranks, const std::string& arguments, std::string* said) {
  const std::string launcher = ranks > 1 ? fmt::format("'{}' -np {} ", LONGSPAN_MPIEXEC, ranks) : "";
  const std::string command =
      fmt::format("{}'{}' {} > '{}' 2>&1", launcher, LONGSPAN_PROGRAM, arguments, folder / "said");
  const int status = std::system(command.c_str());
  *said = ReadFile(folder / "said");
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace longspan
