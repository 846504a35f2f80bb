// Mesh: the ranks as dp x cp. World rank = dp_index * cp + cp_index, so that the ranks of one cp group are neighbours.
//
// Each group has a communicator for tensors of the device and one for host values (losses, counts). On a CPU they are
// the same. On a GPU a group of all ranks has the world's.
#pragma once

#include <memory>

#include "parallel/comm/comm.h"

namespace longspan {

class Mesh {
 public:
  // Collective. `host_world`: all ranks, over MPI; dp = 0 takes world/cp. Throws Error (configuration) when world size
  // is not dp*cp. `device` outlives the mesh.
  Mesh(std::unique_ptr<Communicator> host_world, int64_t dp, int64_t cp, Device& device, Transport transport);
  // For host memory alone.
  Mesh(std::unique_ptr<Communicator> host_world, int64_t dp, int64_t cp);

  Communicator& world() const { return *tensors_.world; }
  Communicator& cp() const { return *tensors_.cp; }  // the ranks that share one sequence
  Communicator& dp() const { return *tensors_.dp; }  // the ranks that hold the same part of different sequences
  Communicator& host_world() const { return *host_.world; }
  int dp_size() const { return host_.dp->size(); }
  int cp_size() const { return host_.cp->size(); }
  int dp_index() const { return host_.dp->rank(); }
  int cp_index() const { return host_.cp->rank(); }

 private:
  struct Groups {
    std::shared_ptr<Communicator> world, cp, dp;
  };
  static Groups Cut(std::shared_ptr<Communicator> world, int64_t cp, bool share);

  Groups host_, tensors_;
};

}  // namespace longspan
