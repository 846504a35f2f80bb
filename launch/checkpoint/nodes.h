// Nodes: which ranks find the same files under a path.
#pragma once

#include <string>
#include <vector>

#include "parallel/comm/comm.h"

namespace longspan {

class Nodes {
 public:
  // The node of each rank, numbered in the order of their first ranks.
  explicit Nodes(std::vector<int> of);
  static Nodes One(int ranks) { return Nodes(std::vector<int>(ranks, 0)); }
  // Collective over `world`, on host memory: ranks of one `name` are on one node.
  static Nodes Gather(Communicator& world, const std::string& name);

  int count() const { return static_cast<int>(ranks_.size()); }
  int of(int rank) const { return of_[rank]; }
  const std::vector<int>& ranks(int node) const { return ranks_[node]; }
  int place(int rank) const;  // among those of its node
  // The rank of the next node that keeps what this one has; itself where there is one node.
  int partner(int rank) const;

 private:
  std::vector<int> of_;                  // by rank
  std::vector<std::vector<int>> ranks_;  // by node
};

}  // namespace longspan
