#include "launch/report/planned.h"

#include <algorithm>
#include <map>

#include "launch/report/summary.h"

namespace longspan {
namespace {

// Stages whose transfers are the program's own.
bool OfTheProgram(const std::string& stage) { return stage == "agreement" || stage == "metrics"; }

}  // namespace

std::vector<PlanRow> BesidePlan(const ProfileData& data, const PlannedRun& plan) {
  std::vector<PlanRow> rows;
  const auto rank = std::find_if(data.ranks.begin(), data.ranks.end(),
                                 [&](const RankProfile& profile) { return profile.rank == plan.rank; });
  if (rank == data.ranks.end()) return rows;
  std::map<std::string, double> memory, transfers;
  for (const proto::Memory& peak : rank->peaks) {
    if (!peak.host()) memory[peak.use()] = static_cast<double>(peak.bytes());
  }
  double flops = 0, seconds = 0, steps = 0, seen = 0;
  for (const ProfilePeriod& period : rank->periods) {
    if (period.what != proto::Period::STEP) continue;
    steps += 1;
    seconds += period.seconds;
    if (!IsSeen(period)) continue;
    seen += 1;
    for (const ProfileCell& cell : period.cells) flops += cell.flops;
    for (const ProfileTransfer& transfer : period.transfers) {
      if (!OfTheProgram(transfer.span.stage)) transfers[transfer.span.name] += transfer.bytes;
    }
  }
  if (steps == 0) return rows;
  double planned_memory = 0;
  for (const auto& [use, bytes] : plan.memory) {
    rows.push_back({"memory: " + use, "bytes", bytes, memory[use]});
    planned_memory += bytes;
  }
  rows.push_back({"memory: all but scratch", "bytes", planned_memory, memory[""] - memory["scratch"]});
  // Of a CPU what is in use is all that the process ever took.
  if (rank->header.gpu()) {
    rows.push_back({"memory: scratch", "bytes", plan.scratch, memory["scratch"]});
    if (plan.nccl > 0)
      rows.push_back({"memory: NCCL and the rest", "bytes", plan.nccl, rank->totals.memory - memory[""]});
    const double planned = planned_memory + plan.scratch + plan.nccl;
    if (plan.nccl >= 0) rows.push_back({"memory: in use", "bytes", planned, rank->totals.memory});
  }
  if (seen > 0) {
    for (const auto& [name, bytes] : plan.transfers) {
      const std::string operation = name.starts_with("comm.") ? name.substr(5) : name;
      rows.push_back({"received by " + operation, "bytes", bytes, transfers[name] / seen});
    }
    rows.push_back({"computed", "FLOP", plan.flops, flops / seen});
  }
  if (plan.least > 0) rows.push_back({"a step, transfers hidden", "seconds", plan.least, seconds / steps});
  if (plan.most > plan.least) rows.push_back({"a step, transfers not hidden", "seconds", plan.most, seconds / steps});
  return rows;
}

}  // namespace longspan
