// The weights, which every rank has a whole copy of, compared over the ranks.
#pragma once

#include <cstdint>

#include "launch/job/job.h"

namespace longspan {

// Collective. `hash` is of this rank's weights before the update of the step. Throws Error (a rank failed) on every
// rank where hashes differ, naming the ranks, and their nodes, that have others than most.
void RequireEqualReplicas(Job& job, int64_t step, uint64_t hash);

}  // namespace longspan
