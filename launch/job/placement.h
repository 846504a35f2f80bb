// Placement: where each rank computes, as the table of the startup, and what is to be said against it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/comm/comm.h"

namespace longspan {

// Of one rank; what is not known is "".
struct RankPlace {
  std::string node, device;
  std::string bus;       // of its GPU: "0000:1b:00.0"
  std::string cpus;      // that are its own: "0-3,8"
  std::string numa;      // their NUMA nodes
  std::string gpu_numa;  // those near its GPU
  std::string bound;     // who bound it
  std::string versions;  // of what it runs on: "Open MPI v4.1.4, NCCL 2.28.3, driver 580.65.06"
  bool operator==(const RankPlace&) const = default;
};

// Of all ranks, on each. Collective, on host memory.
std::vector<RankPlace> GatherPlaces(Communicator& world, const RankPlace& own);

// A line for each rank, ranks of a node that are alike in one, and nodes that are alike in one; then the versions, with
// a warning where ranks have others.
std::string PlacementTable(const std::vector<RankPlace>& places);

// A warning with its cure where cp groups (neighbouring ranks) lie on more nodes than they would if the launcher gave
// each node neighbouring ranks; "" where they do not.
std::string NeedlessSplit(const std::vector<RankPlace>& places, int64_t cp);

// Of this machine's NVIDIA driver: "580.65.06"; "" where there is none.
std::string DriverVersion();

// Ascending numbers: "0-3,8".
std::string RangesText(const std::vector<int>& numbers);

}  // namespace longspan
