// Runs of one model on different numbers of ranks: how throughput grows.
//
// Strong scaling: runs of the same tokens a step. Weak scaling: runs of the same tokens a step and rank. Each table has
// the runs of one such amount on two or more numbers of ranks; efficiency is throughput a rank over that of the run on
// the fewest. A run can be in both.
//
// JSON, in SI units: {"version":1,
//   "runs":[{"run","ranks","dp","cp","device","tokens","step","tokens_per_second","exposed_share","memory"},..],
//   "tables":[{"kind":"strong" or "weak","tokens":..,"rows":[{"run":INDEX,"speedup","efficiency"},..]},..]}
#pragma once

#include <string>
#include <vector>

#include "launch/report/report.h"

namespace longspan {

std::string ScalingText(const std::vector<ReportedRun>& runs);
std::string ScalingJson(const std::vector<ReportedRun>& runs);

}  // namespace longspan
