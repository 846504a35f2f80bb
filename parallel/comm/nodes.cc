#include "parallel/comm/nodes.h"

#include <algorithm>
#include <utility>

namespace longspan {

NodeMap::NodeMap(std::vector<int> node_of_rank) : node_(std::move(node_of_rank)) {
  for (int rank = 0; rank < size(); ++rank) {
    auto& mates = mates_.emplace_back();
    for (int other = 0; other < size(); ++other) {
      if (other == rank) index_.push_back(static_cast<int>(mates.size()));
      if (Near(rank, other)) mates.push_back(other);
    }
  }
  shares_ = std::any_of(mates_.begin(), mates_.end(),
                        [&](const auto& mates) { return mates.size() > 1 && mates.size() < node_.size(); });
}

int NodeMap::Receiver(int from, int to) const {
  if (Near(from, to)) return to;
  const std::vector<int>& mates = mates_[to];
  return mates[index_[from] % mates.size()];
}

}  // namespace longspan
