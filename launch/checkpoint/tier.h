// Tier: a place of checkpoints as the ranks have it. The disk is the same folder for all of them. In memory, under
// /dev/shm, each node has a folder of its own, with the manifest and the files of its ranks and of the node before it:
// what one node held is also elsewhere. Files there outlive the processes, not the machine.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/manifest.h"
#include "launch/checkpoint/nodes.h"
#include "parallel/comm/comm.h"

namespace longspan {

class Tier {
 public:
  // `world` outlives it. `path` need not be there. `nodes`: whose ranks share the folder.
  Tier(Communicator& world, std::string path, Nodes nodes, bool in_memory);

  const std::string& path() const { return path_; }
  const CheckpointFolder& folder() const { return folder_; }
  const Nodes& nodes() const { return nodes_; }
  bool in_memory() const { return in_memory_; }
  bool keeper() const;  // this rank changes names, for its node

  // All of these are collective, and throw Error alike on all ranks.

  std::vector<int64_t> Steps() const;  // that some node has, newest first
  struct Found {
    const Tier* tier = nullptr;
    std::string path;  // on each node that has it
    Manifest manifest;
    std::map<std::string, std::vector<int>> holders;  // by file: ranks that have it, as it should be
  };
  // Reads all of a step. Throws Error (io, data) naming the file that is not as it should be on any node.
  Found Check(int64_t step) const;
  // Brings to this rank's folder those of `files` that are missing there.
  void Bring(const Found& found, const std::set<std::string>& files) const;
  // Of a step that is being written, by rank what it has: brings a copy of its files to its partner's node.
  void Spread(int64_t step, const std::vector<Manifest>& parts) const;

 private:
  struct Move {
    std::string file;
    int64_t bytes;
    int from, to;  // ranks
  };
  void MoveFiles(const std::string& path, const std::vector<Move>& moves) const;

  Communicator& world_;
  const std::string path_;
  const CheckpointFolder folder_;
  const Nodes nodes_;
  const bool in_memory_;
};

}  // namespace longspan
