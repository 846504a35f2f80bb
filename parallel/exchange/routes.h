// The ways of fetched blocks. A block that ranks of another node want crosses the network once: the lowest of them gets
// it from its owner, and passes it on.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/comm/comm.h"

namespace longspan {

// Of one owner, for each rank that is asked about: whether it wants a block, a byte for each. Ranks that share a node
// are asked about together.
using BlockMarks = std::vector<const uint8_t*>;

// Blocks of one owner that come from one rank: from the owner or, passed on, from one that shares the borrower's node.
struct Portion {
  int from;
  std::vector<int32_t> blocks;  // the owner's, ascending
};
// All that `borrower` wants of `owner`'s `blocks` blocks, in the order in which it lies at the borrower: the owner's
// own portion first, which may be empty. `nodes`: null where each asks for itself.
std::vector<Portion> PortionsOf(const NodeMap* nodes, int owner, int borrower, int64_t blocks, const BlockMarks& marks);

// Neighbours in a portion.
struct Run {
  int64_t begin, length;
};
// Of a portion that a rank got, what `wants` of it.
std::vector<Run> RunsOf(const Portion& portion, const uint8_t* wants);

}  // namespace longspan
