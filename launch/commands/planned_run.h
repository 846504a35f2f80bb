// A run with what `longspan plan` says of it, for reports.
#pragma once

#include <string>

#include "launch/plan/planned_step.h"
#include "launch/plan/rates.h"
#include "launch/report/report.h"

namespace longspan {

// Of the device and the links; without a file no times are planned.
struct PlanRates {
  std::string path;  // what `longspan bench nsa --json` wrote
  double link_gbps = 0, latency_us = 20;
};

struct PlannedTimes {
  double compute = 0, transfers = 0;    // seconds
  std::map<std::string, double> spans;  // by name
};
PlannedTimes TimesOf(const PlannedStep& step, const DeviceRates& rates, const PlanRates& given);
bool IsTransfer(const std::string& span);

// The plan is of RUN/config.textproto; a problem of the summary where that cannot be read. Resets this process's trace.
// Throws Error where there is no profile, or no such rates.
ReportedRun ReadPlannedRun(const std::string& folder, const PlanRates& rates = {});

}  // namespace longspan
