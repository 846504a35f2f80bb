#include "parallel/exchange/routes.h"

#include <algorithm>

namespace longspan {

std::vector<Portion> PortionsOf(const NodeMap* nodes, int owner, int borrower, int64_t blocks,
                                const BlockMarks& marks) {
  std::vector<Portion> portions = {{owner, {}}};
  const bool shares = nodes && !nodes->Near(owner, borrower);
  if (shares) {
    for (const int mate : nodes->mates(borrower)) {
      if (mate < borrower) portions.push_back({mate, {}});
    }
  }
  for (int64_t block = 0; block < blocks; ++block) {
    if (!marks[borrower][block]) continue;
    // The lowest that wants it, if that is another.
    const auto first = std::find_if(portions.begin() + 1, portions.end(),
                                    [&](const Portion& portion) { return marks[portion.from][block] != 0; });
    (first == portions.end() ? portions[0] : *first).blocks.push_back(static_cast<int32_t>(block));
  }
  return portions;
}

std::vector<Run> RunsOf(const Portion& portion, const uint8_t* wants) {
  std::vector<Run> runs;
  for (int64_t i = 0; i < std::ssize(portion.blocks); ++i) {
    if (!wants[portion.blocks[i]]) continue;
    if (runs.empty() || runs.back().begin + runs.back().length < i) runs.push_back({i, 0});
    ++runs.back().length;
  }
  return runs;
}

}  // namespace longspan
