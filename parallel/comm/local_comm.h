// A group without transfers: one process alone, or the plan of a job.
#pragma once

#include <memory>

#include "parallel/comm/comm.h"

namespace longspan {

// Rank `rank` of `size` ranks, over memory of `device`, which outlives it. Alone (size 1) every verb does what it says,
// which is a copy at most. A larger group is only planned: it knows its size, and on streams of a planned device counts
// what the rank would receive, and the scratch that takes over `transport`; otherwise it refuses every verb (Error).
std::unique_ptr<Communicator> MakeLocalCommunicator(Device& device, int64_t size = 1, int64_t rank = 0,
                                                    Transport transport = Transport::kAuto);

}  // namespace longspan
