// Agreement: what all ranks must have alike, compared before they work on it together.
#pragma once

#include <string>
#include <vector>

#include "parallel/comm/comm.h"
#include "runtime/error.h"

namespace longspan {

struct Claim {
  std::string key;    // "train.steps"
  std::string value;  // what this rank has
  std::string from;   // where it has it from; shown, but not compared
};

// Collective over `world`, on host memory. Ranks compare hashes of their claims; where one is another than rank 0's,
// throws Error (`code`) on every rank, naming each key that differs, its two values and the first rank that differs.
// `what` is what they disagree on: "the configuration".
void RequireAgreement(Communicator& world, ExitCode code, const std::string& what, const std::vector<Claim>& claims);

}  // namespace longspan
