// The speed of the links between ranks, as this program uses them.
#pragma once

#include <string>

#include "parallel/comm/comm.h"

namespace longspan {

// Collective over `world`, whose memory is the device's. Times a ring of send-receives (every rank to its successor)
// and an all-gather at a small and a large size, and returns a table on every rank: latency, bandwidth, and the slowest
// link by name.
std::string MeasureLinks(Communicator& world, Device& device, Stream& stream);

}  // namespace longspan
