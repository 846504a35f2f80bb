// The links between ranks, as this program uses them: their speed, and whether the collectives over them are right.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "launch/job/job.h"
#include "launch/report/links_report.h"

namespace longspan {

// Collective over the job's ranks. Sends between every pair, each way, and around the rings of all ranks, of each cp
// and of each dp group, at sizes that grow until a message takes milliseconds; fills in all of the report but the
// collectives and the version. Up to 16 ranks one pair at a time, above that disjoint pairs together.
LinkReport MeasureLinks(Job& job, Stream& stream);

// What CheckCollectives found.
struct CollectiveCheck {
  int64_t calls = 0;  // whose results were looked at
  std::string wrong;  // the first on this rank that is not as expected: verb, type, element, both values; "" = none
};

// Collective over `group`, for tensors of the device's memory: every verb, of all types that it takes, short and long,
// with even and uneven parts, on numbers whose sums are exact, compared by ==.
CollectiveCheck CheckCollectives(Communicator& group, Device& device, Stream& stream);

// Every pair of `ranks` ranks once; the pairs of a round have no rank in common.
std::vector<std::vector<std::pair<int, int>>> PairRounds(int ranks);

}  // namespace longspan
