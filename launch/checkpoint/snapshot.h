// Snapshot: what a rank owns of the optimizer's state, copied to page-locked host memory, and written from there.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "launch/checkpoint/manifest.h"
#include "model/training/optimizer.h"
#include "runtime/host_buffer.h"

namespace longspan {

// What files call them.
std::vector<std::pair<std::string, Tensor>> NamedTensors(const std::vector<Optimizer::State>& states);

class Snapshot {
 public:
  void Reserve(Device& device, int64_t bytes) { memory_.Get(device, bytes); }
  // Copies the state on `stream`, and returns when that is done. From any thread; the state must not change meanwhile.
  void Take(Device& device, Stream& stream, const Optimizer& optimizer);
  // Writes FOLDER/NAME, from any thread, and returns what a manifest says of it; nothing where this rank owns nothing.
  // Throws Error (io).
  Manifest Write(const std::string& folder, const std::string& name) const;

 private:
  HostBuffer memory_{"checkpoints on their way to the disk"};
  std::vector<std::pair<std::string, Tensor>> tensors_;  // in memory_
};

}  // namespace longspan
