#include "launch/job/agreement.h"

#include <fmt/format.h>

#include <functional>
#include <map>
#include <sstream>

#include "parallel/comm/texts.h"

namespace longspan {
namespace {

using Values = std::map<std::string, Claim>;

Values Parse(const std::string& text) {
  Values values;
  std::istringstream lines(text);
  for (Claim claim;
       std::getline(lines, claim.key) && std::getline(lines, claim.value) && std::getline(lines, claim.from);) {
    values[claim.key] = claim;
  }
  return values;
}

std::string Show(const Values& values, const std::string& key) {
  const auto found = values.find(key);
  if (found == values.end()) return "nothing";
  const Claim& claim = found->second;
  return claim.from.empty() ? claim.value : fmt::format("{} ({})", claim.value, claim.from);
}

}  // namespace

void RequireAgreement(Communicator& world, ExitCode code, const std::string& what, const std::vector<Claim>& claims) {
  std::string compared, shown;
  for (const Claim& claim : claims) {
    compared += claim.key + "\n" + claim.value + "\n";
    shown += claim.key + "\n" + claim.value + "\n" + claim.from + "\n";
  }
  const std::vector<std::string> hashes = GatherTexts(world, std::to_string(std::hash<std::string>()(compared)));
  int other = 1;
  while (other < world.size() && hashes[other] == hashes[0]) ++other;
  if (other >= world.size()) return;

  const std::vector<std::string> texts = GatherTexts(world, shown);
  const Values first = Parse(texts[0]), found = Parse(texts[other]);
  Values all = first;
  all.insert(found.begin(), found.end());
  std::string differences;
  for (const auto& [key, claim] : all) {
    const bool both = first.contains(key) && found.contains(key);
    if (both && first.at(key).value == found.at(key).value) continue;
    differences += fmt::format("\n  {}: {} on rank 0, {} on rank {}", key, Show(first, key), Show(found, key), other);
  }
  throw Error(
      code, fmt::format("{}the ranks disagree on {}; start all with the same:{}", ProcessPrefix(), what, differences));
}

}  // namespace longspan
