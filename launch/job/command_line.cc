#include "launch/job/command_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace longspan {

std::vector<std::string> ArgumentsOf(const std::string& process) {
  std::ifstream file("/proc/" + process + "/cmdline", std::ios::binary);
  std::vector<std::string> arguments;
  for (std::string argument; std::getline(file, argument, '\0');) arguments.push_back(argument);
  return arguments;
}

std::string ShellText(const std::vector<std::string>& arguments) {
  constexpr const char* kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  std::string text;
  for (const std::string& argument : arguments) {
    if (!text.empty()) text += ' ';
    if (!argument.empty() && argument.find_first_not_of(kPlain) == std::string::npos) {
      text += argument;
      continue;
    }
    text += '\'';
    for (const char c : argument) c == '\'' ? text += "'\\''" : text += c;
    text += '\'';
  }
  return text;
}

std::string ResumeCommand(const std::vector<std::string>& own, const std::vector<std::string>& parent, int ranks,
                          const std::string& launcher) {
  std::vector<std::string> again = own;
  std::erase(again, "--overwrite");
  if (std::find(again.begin(), again.end(), "--resume") == again.end()) again.emplace_back("--resume");
  const bool launched = parent.size() > own.size() && std::equal(own.rbegin(), own.rend(), parent.rbegin());
  if (launched) return ShellText({parent.begin(), parent.end() - std::ssize(own)}) + " " + ShellText(again);
  return (ranks > 1 ? launcher + " " : "") + ShellText(again);
}

std::string ResumeCommand(int ranks) {
  const bool slurm = std::getenv("SLURM_STEP_NUM_TASKS") != nullptr && std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr;
  const char* const pmi = std::getenv("SLURM_MPI_TYPE");
  const std::string srun = fmt::format("srun{} -n", pmi ? fmt::format(" --mpi={}", pmi) : "");
  const std::string launcher = fmt::format("{} {}", slurm ? srun : "mpirun -np", ranks);
  std::vector<std::string> parent;
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr) parent = ArgumentsOf(std::to_string(getppid()));
  return ResumeCommand(ArgumentsOf("self"), parent, ranks, launcher);
}

}  // namespace longspan
