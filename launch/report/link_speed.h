// How fast data gets from each rank to the next on host memory.
#pragma once

#include "parallel/comm/comm.h"

namespace longspan {

struct LinkSpeed {
  int peer = -1;       // the rank after this one, of the last the first; -1: there is no other
  double seconds = 0;  // that `bytes` take one way, the shortest of a few round trips
  double bytes = 0;
};

// Collective over a group on host memory, which nobody uses meanwhile. Ranks measure in pairs, two or three at a time.
LinkSpeed MeasureNextLink(Communicator& group);

}  // namespace longspan
