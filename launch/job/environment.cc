#include "launch/job/environment.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <sstream>
#include <string_view>

#include "launch/job/command_line.h"
#include "parallel/comm/texts.h"

namespace longspan {
namespace {

// mpirun sets more of OMPI_MCA_ for its own use, other on each rank.
constexpr std::string_view kBeginnings[] = {"NCCL_",          "OMP_",           "GOMP_",         "UCX_",
                                            "LONGSPAN_",      "OMPI_MCA_btl",   "OMPI_MCA_pml",  "OMPI_MCA_mtl",
                                            "OMPI_MCA_coll_", "OMPI_MCA_mpi_",  "OMPI_MCA_oob_", "OMPI_MCA_plm_",
                                            "OMPI_MCA_rmaps", "OMPI_MCA_hwloc", "PMIX_MCA_gds",  "PMIX_MCA_ptl"};
constexpr std::string_view kNames[] = {"CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID",        "SLURM_JOB_NODELIST",
                                       "SLURM_NTASKS",         "SLURM_RESTART_COUNT", "SLURM_DISTRIBUTION",
                                       "SLURM_CPU_BIND",       "SLURM_MPI_TYPE"};
// PrepareNccl gives ranks that share a GPU names of their own.
constexpr std::string_view kMayDiffer[] = {"CUDA_VISIBLE_DEVICES", "SLURM_CPU_BIND", "NCCL_HOSTID"};

bool IsOneOf(std::string_view name, const auto& names) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

std::string Quoted(const std::string& value) { return ShellText({value}); }

}  // namespace

Environment ReadEnvironment() {
  Environment found;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    const size_t equal = text.find('=');
    if (equal == std::string_view::npos) continue;
    const std::string_view name = text.substr(0, equal);
    const bool taken =
        IsOneOf(name, kNames) || std::any_of(std::begin(kBeginnings), std::end(kBeginnings),
                                             [&](std::string_view beginning) { return name.starts_with(beginning); });
    if (!taken) continue;
    std::string value(text.substr(equal + 1));
    std::replace(value.begin(), value.end(), '\n', ' ');
    found.emplace(name, value);
  }
  return found;
}

std::string EnvironmentText(const Environment& environment) {
  std::string text;
  for (const auto& [name, value] : environment) {
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, Quoted(value));
  }
  return text;
}

std::string DifferentEnvironment(Communicator& world, const Environment& own) {
  std::string told;
  for (const auto& [name, value] : own) {
    if (!IsOneOf(name, kMayDiffer)) told += name + "=" + value + "\n";
  }
  const std::vector<std::string> all = GatherTexts(world, told);
  const auto parse = [](const std::string& text) {
    Environment environment;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      const size_t equal = line.find('=');
      environment.emplace(line.substr(0, equal), line.substr(equal + 1));
    }
    return environment;
  };
  const auto show = [](const Environment& environment, const std::string& name) {
    const auto found = environment.find(name);
    return found == environment.end() ? "not set" : name + "=" + Quoted(found->second);
  };
  const Environment first = parse(all[0]);
  Environment warned;  // by name: the first difference
  for (int rank = 1; rank < world.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    const Environment other = parse(all[rank]);
    Environment names = first;
    names.insert(other.begin(), other.end());
    for (const auto& [name, value] : names) {
      const std::string here = show(first, name), there = show(other, name);
      if (here == there) continue;
      warned.emplace(name, fmt::format("  {}: {} on rank 0, {} on rank {}\n", name, here, there, rank));
    }
  }
  if (warned.empty()) return "";
  std::string text =
      "warning: the ranks have different environments (mpirun -x NAME hands a variable on to all nodes):\n";
  for (const auto& [name, line] : warned) text += line;
  return text;
}

}  // namespace longspan
