// The clocks of ranks, compared.
#pragma once

#include "parallel/comm/comm.h"

namespace longspan {

struct ClockDifference {
  double ahead = 0;  // seconds: rank 0's clock (WallSeconds) is this rank's plus this
  double error = 0;  // at most
};

// Collective over a group on host memory, which nobody uses meanwhile. Round trips along a binary tree, of each pair
// the shortest: the answer was read somewhere within it. Errors add up along the tree.
ClockDifference CompareClocks(Communicator& group);

}  // namespace longspan
