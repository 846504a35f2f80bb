#include "launch/job/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "parallel/comm/texts.h"

namespace longspan {
namespace {

constexpr std::string RankPlace::*kMembers[] = {&RankPlace::node,  &RankPlace::device,  &RankPlace::bus,
                                                &RankPlace::cpus,  &RankPlace::numa,    &RankPlace::gpu_numa,
                                                &RankPlace::bound, &RankPlace::versions};

std::string Row(std::array<std::string, 8> cells) {
  for (std::string& cell : cells) {
    if (cell.empty()) cell = "-";
  }
  const auto& [ranks, node, device, bus, cpus, numa, gpu_numa, bound] = cells;
  return fmt::format("  {:>7}  {:<16} {:<28} {:<12} {:<12} {:<5} {:<5} {}\n", ranks, node, device, bus, cpus, numa,
                     gpu_numa, bound);
}

// Nodes in the order of their first ranks, with their ranks.
std::vector<std::vector<int>> NodesOf(const std::vector<RankPlace>& places) {
  std::vector<std::vector<int>> nodes;
  std::map<std::string, size_t> found;
  for (int rank = 0; rank < std::ssize(places); ++rank) {
    const auto [at, is_new] = found.emplace(places[rank].node, nodes.size());
    if (is_new) nodes.emplace_back();
    nodes[at->second].push_back(rank);
  }
  return nodes;
}

// The lines of one node, of ranks that are alike one.
std::string NodeRows(const std::vector<RankPlace>& places, const std::vector<int>& ranks) {
  std::string text;
  for (size_t begin = 0; begin < ranks.size();) {
    size_t end = begin + 1;
    while (end < ranks.size() && places[ranks[end]] == places[ranks[begin]]) ++end;
    const RankPlace& p = places[ranks[begin]];
    text += Row({RangesText({ranks.begin() + begin, ranks.begin() + end}), p.node, p.device, p.bus, p.cpus, p.numa,
                 p.gpu_numa, p.bound});
    begin = end;
  }
  return text;
}

bool Alike(const std::vector<RankPlace>& places, const std::vector<int>& a, const std::vector<int>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](int x, int y) {
    RankPlace other = places[y];
    other.node = places[x].node;
    return places[x] == other;
  });
}

std::string VersionLines(const std::vector<RankPlace>& places) {
  std::map<std::string, std::vector<int>> ranks;
  for (int rank = 0; rank < std::ssize(places); ++rank) ranks[places[rank].versions].push_back(rank);
  if (ranks.size() == 1) return fmt::format("  versions   {}\n", places[0].versions);
  std::string text = "warning: the ranks have different libraries or drivers:\n";
  for (const auto& [versions, those] : ranks) text += fmt::format("  ranks {}: {}\n", RangesText(those), versions);
  return text;
}

// Nodes that each group of cp neighbours lies on, summed.
int64_t NodesOfGroups(const std::vector<std::string>& nodes, int64_t cp) {
  int64_t sum = 0;
  for (int64_t begin = 0; begin < std::ssize(nodes); begin += cp) {
    sum += std::ssize(std::set<std::string>(nodes.begin() + begin, nodes.begin() + begin + cp));
  }
  return sum;
}

}  // namespace

std::vector<RankPlace> GatherPlaces(Communicator& world, const RankPlace& own) {
  std::string text;
  for (const auto member : kMembers) text += own.*member + "\n";
  std::vector<RankPlace> places;
  for (const std::string& told : GatherTexts(world, text)) {
    std::istringstream lines(told);
    RankPlace& place = places.emplace_back();
    for (const auto member : kMembers) std::getline(lines, place.*member);
  }
  return places;
}

std::string PlacementTable(const std::vector<RankPlace>& places) {
  std::string text = Row({"ranks", "node", "device", "bus id", "cpus", "NUMA", "GPU's", "bound"});
  const std::vector<std::vector<int>> nodes = NodesOf(places);
  std::vector<bool> told(nodes.size(), false);
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (told[i]) continue;
    text += NodeRows(places, nodes[i]);
    std::vector<int> ranks;
    std::string names;
    for (size_t other = i + 1; other < nodes.size(); ++other) {
      if (told[other] || !Alike(places, nodes[i], nodes[other])) continue;
      told[other] = true;
      ranks.insert(ranks.end(), nodes[other].begin(), nodes[other].end());
      names += (names.empty() ? "" : " ") + places[nodes[other][0]].node;
    }
    if (ranks.empty()) continue;
    std::sort(ranks.begin(), ranks.end());
    text += fmt::format("  {:>7}  {}: as {}\n", RangesText(ranks), names, places[nodes[i][0]].node);
  }
  return text + VersionLines(places);
}

std::string NeedlessSplit(const std::vector<RankPlace>& places, int64_t cp) {
  if (cp <= 1 || std::ssize(places) % cp != 0) return "";
  std::vector<std::string> found, best;
  for (const RankPlace& place : places) found.push_back(place.node);
  for (const std::vector<int>& ranks : NodesOf(places)) best.insert(best.end(), ranks.size(), places[ranks[0]].node);
  const int64_t lie = NodesOfGroups(found, cp), could = NodesOfGroups(best, cp);
  if (lie <= could) return "";
  const int64_t groups = std::ssize(places) / cp;
  return fmt::format(
      "warning: the {} of {} ranks lie on {} nodes in all where {} would do, and what they exchange crosses the "
      "network: "
      "the launcher deals ranks out over the nodes; give each node neighbours: mpirun --map-by slot, or srun "
      "--distribution=block\n",
      groups == 1 ? "cp group" : fmt::format("{} cp groups", groups), cp, lie, could);
}

std::string DriverVersion() {
  std::ifstream file("/proc/driver/nvidia/version");  // "NVRM version: NVIDIA UNIX .. Kernel Module  580.65.06  .."
  for (std::string word; file >> word;) {
    const bool version =
        word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos;
    if (version) return word;
  }
  return "";
}

std::string RangesText(const std::vector<int>& numbers) {
  std::string text;
  for (size_t begin = 0; begin < numbers.size();) {
    size_t end = begin + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    text += fmt::format("{}{}", text.empty() ? "" : ",", numbers[begin]);
    if (end > begin + 1) text += fmt::format("-{}", numbers[end - 1]);
    begin = end;
  }
  return text;
}

}  // namespace longspan
