// What all ranks do on the host together, where each knows how it went for the others.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/comm.h"
#include "runtime/error.h"

namespace longspan {

struct Outcome {
  ExitCode code = ExitCode::kOk;
  std::string text;  // what was returned, or what the error says
};

// All of these are collective over `world`, on host memory.

// Calls `part` on every rank; how it ended, by rank.
std::vector<Outcome> TryOnRanks(Communicator& world, const std::function<std::string()>& part);
// What each returned. When one fails, all throw the Error of the first.
std::vector<std::string> OnAllRanks(Communicator& world, const std::function<std::string()>& part);
double Largest(Communicator& world, double value);

}  // namespace longspan
