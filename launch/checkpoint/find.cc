#include "launch/checkpoint/find.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "launch/checkpoint/compare.h"
#include "runtime/count.h"
#include "runtime/error.h"

namespace longspan {

Resumption FindCheckpoint(const Tier& disk, const Tier& memory, const RunConfig& config,
                          const std::vector<DataClaim>& data, const std::function<void(const std::string&)>& say) {
  struct Candidate {
    int64_t step;
    const Tier* tier;
  };
  std::vector<Candidate> candidates;
  for (const Tier* tier : {&disk, &memory}) {
    for (const int64_t step : tier->Steps()) candidates.push_back({step, tier});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.step > b.step; });
  Resumption result;
  for (const auto& [step, tier] : candidates) {
    try {
      result.found = tier->Check(step);
      break;
    } catch (const Error& error) {
      const std::string path = tier->folder().PathOf(step);
      if (tier == &disk) result.broken.push_back(path);
      say(fmt::format("warning: checkpoint {} is passed over: {}", path, error.what()));
    }
  }
  if (!result.found) {
    if (!result.broken.empty()) {
      Fail(ExitCode::kData, "{}: none of the {} in it is complete; --overwrite begins again from the first step",
           disk.path(), result.broken.size() == 1 ? "checkpoint" : Count(std::ssize(result.broken), "checkpoint"));
    }
    return result;
  }
  const auto& [tier, path, manifest, holders] = *result.found;
  const Differences differences = Compare(manifest, config, data);
  if (!differences.refused.empty()) {
    Fail(ExitCode::kConfig, "{} does not fit this run:\n  {}\nset these as they were, or set name to another", path,
         fmt::join(differences.refused, "\n  "));
  }
  say(fmt::format("  resume     {}{}, after step {}", path, tier->in_memory() ? " (in memory)" : "",
                  manifest.state.step));
  for (const std::string& changed : differences.changed) say("  changed    " + changed);
  return result;
}

}  // namespace longspan
