// What was planned for a run (`longspan plan`), beside what was measured.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "launch/report/profile_data.h"

namespace longspan {

// Of the rank that a step asks most of.
struct PlannedRun {
  int rank = 0;
  std::vector<std::pair<std::string, double>> memory;     // bytes by use, as the run's own table has them
  double scratch = 0, nccl = 0;                           // bytes besides, of a GPU; NCCL's -1: unknown
  std::vector<std::pair<std::string, double>> transfers;  // bytes received in a step by operation: "comm.all_gather"
  double flops = 0;                                       // of a step
  double dense_flops = 0;                                 // of all ranks: as if every query attended to all before it
  double least = 0, most = 0;  // seconds of a step, with transfers hidden or not; 0: no rates were given
};

struct PlanRow {
  std::string what;
  std::string unit;  // "bytes", "FLOP", "seconds"
  double planned = 0, measured = 0;
};

// Of steps means; transfers without those of the program's agreement and metrics, which no plan has. Empty where the
// planned rank has no profile or no steps.
std::vector<PlanRow> BesidePlan(const ProfileData& data, const PlannedRun& plan);

}  // namespace longspan
