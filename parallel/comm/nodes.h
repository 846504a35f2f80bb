// NodeMap: which ranks of a group share a node, and who receives for it what comes from another: each thing crosses the
// network once for all ranks of a node, whose memory carries it to the others.
#pragma once

#include <vector>

namespace longspan {

class NodeMap {
 public:
  // The node of each rank: equal numbers share one.
  explicit NodeMap(std::vector<int> node_of_rank);

  bool Near(int a, int b) const { return node_[a] == node_[b]; }
  // The rank that shares the node of `to` and receives what `from` gives to that node: another for each rank of the
  // node of `from`, as far as there are. `to` itself where it shares the node of `from`.
  int Receiver(int from, int to) const;
  const std::vector<int>& mates(int rank) const { return mates_[rank]; }  // of its node, itself included, ascending
  int far(int rank) const { return size() - static_cast<int>(mates_[rank].size()); }  // ranks of other nodes
  // Whether there is anything to share: several nodes, and several ranks on one of them.
  bool shares() const { return shares_; }

 private:
  int size() const { return static_cast<int>(node_.size()); }

  std::vector<int> node_, index_;        // of each rank; index among those of its node
  std::vector<std::vector<int>> mates_;  // of each rank
  bool shares_ = false;
};

}  // namespace longspan
