// What all ranks of a run train on.
#pragma once

#include <functional>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/data/sequence_source.h"
#include "launch/job/agreement.h"
#include "parallel/comm/comm.h"

namespace longspan {

// What ranks must have alike of them.
std::vector<Claim> ClaimsOf(const Sources& sources);

// Collective over `world`, on host memory. Throws Error naming the key where the ranks do not have the same data, or
// these have a token outside the vocabulary: each looks at its part of them, until `stop` says so. Tokens that
// were checked before need not be.
Sources OpenData(const RunConfig& config, Communicator& world, const std::function<bool()>& stop = {},
                 bool check = true);

}  // namespace longspan
