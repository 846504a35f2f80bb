// Mesh: the ranks as dp x cp. World rank = dp_index * cp + cp_index, so that the ranks of one cp group are neighbours.
#pragma once

#include <memory>

#include "parallel/comm.h"

namespace longspan {

class Mesh {
 public:
  // Collective. Throws Error (configuration) when world size is not dp*cp. dp = 0 takes world/cp.
  Mesh(std::unique_ptr<Communicator> world, int64_t dp, int64_t cp);

  Communicator& world() const { return *world_; }
  Communicator& cp() const { return *cp_; }  // the ranks that share one sequence
  Communicator& dp() const { return *dp_; }  // the ranks that hold the same part of different sequences
  int dp_size() const { return dp_->size(); }
  int cp_size() const { return cp_->size(); }
  int dp_index() const { return dp_->rank(); }
  int cp_index() const { return cp_->rank(); }

 private:
  std::unique_ptr<Communicator> world_, cp_, dp_;
};

}  // namespace longspan
