#include "launch/checkpoint/nodes.h"

#include <algorithm>
#include <map>
#include <utility>

#include "parallel/comm/texts.h"

namespace longspan {

Nodes::Nodes(std::vector<int> of) : of_(std::move(of)), ranks_(*std::max_element(of_.begin(), of_.end()) + 1) {
  for (int rank = 0; rank < static_cast<int>(of_.size()); ++rank) ranks_[of_[rank]].push_back(rank);
}

Nodes Nodes::Gather(Communicator& world, const std::string& name) {
  std::map<std::string, int> known;
  std::vector<int> of;
  for (const std::string& each : GatherTexts(world, name)) {
    of.push_back(known.emplace(each, static_cast<int>(known.size())).first->second);
  }
  return Nodes(of);
}

int Nodes::place(int rank) const {
  const std::vector<int>& own = ranks_[of_[rank]];
  return static_cast<int>(std::find(own.begin(), own.end(), rank) - own.begin());
}

int Nodes::partner(int rank) const {
  if (count() == 1) return rank;
  const std::vector<int>& next = ranks_[(of_[rank] + 1) % count()];
  return next[place(rank) % next.size()];
}

}  // namespace longspan
