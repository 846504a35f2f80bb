// The speed of the links between ranks, as this program uses them.
#pragma once

#include <string>

#include "parallel/comm.h"

namespace longspan {

// Collective. Times a ring of send-receives (every rank to its successor) and an all-gather at a small and a large
// size, and returns a table on every rank: latency, bandwidth, and the slowest link by name.
std::string MeasureLinks(Communicator& world, Stream& stream);

}  // namespace longspan
