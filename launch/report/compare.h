// Two runs side by side, what differs most first.
//
// JSON, in SI units:
//   {"version":1, "runs":[A,B], "step":[..,..],
//    "differences":[{"what","seconds":[..,..],"change"},..],  own work by stage, waiting, moving, outside of stages:
//    means of ranks, of a step whose kernels are seen; the changes add up to that of such a step; largest first
//    "figures":[{"what","values":[..,..]},..], "keys":[{"key","values":[TEXT,TEXT]},..]}  of the configuration
#pragma once

#include <string>
#include <vector>

#include "launch/report/report.h"

namespace longspan {

struct KeyDifference {
  std::string key, a, b;
};

// Lines of 120 columns at most but for names. Both runs have steps.
std::string ComparisonText(const ReportedRun& a, const ReportedRun& b, const std::vector<KeyDifference>& keys);
std::string ComparisonJson(const ReportedRun& a, const ReportedRun& b, const std::vector<KeyDifference>& keys);

}  // namespace longspan
