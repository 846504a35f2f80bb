// Offload: what recomputation starts from waits in page-locked host memory between a block's forward and its backward.
//
// On the device there are two sets of these tensors, for blocks of even and odd numbers, which the blocks of one parity
// take in turns (the arena lays them over each other). Copies run on a stream of their own: a block's tensors leave
// while the next block runs forward, and come back while the block behind it runs backward. Those of the last two
// blocks stay.
//
//   forward    Claim(i) before the tensors of block i are written; Store(i) after its forward
//   backward   Await(i) before they are read; Release(i) after its backward
#pragma once

#include <memory>
#include <vector>

#include "model/context.h"
#include "runtime/host_buffer.h"

namespace longspan {

class Offload {
 public:
  static constexpr size_t kSets = 2;

  explicit Offload(const Context& context);
  void Start(const std::vector<std::vector<Tensor>>& tensors);  // of each block, contiguous; allocates on the host

  void Claim(size_t block);
  void Store(size_t block);
  void Await(size_t block);
  void Release(size_t block);

 private:
  struct Block {
    std::vector<Tensor> device, host;
    std::unique_ptr<HostBuffer> memory;
    std::unique_ptr<Event> stored, loaded;
  };
  bool Leaves(size_t block) const { return block + kSets < blocks_.size(); }
  void CopiesFollowCompute();

  const Context& context_;
  std::unique_ptr<Stream> copies_;
  std::unique_ptr<Event> ready_;
  std::vector<Block> blocks_;
};

}  // namespace longspan
