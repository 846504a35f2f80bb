#include "model/network/offload.h"

#include "runtime/place.h"

namespace longspan {

Offload::Offload(const Context& context)
    : context_(context), copies_(context.device.MakeStream("offload")), ready_(context.device.MakeEvent()) {}

void Offload::Start(const std::vector<std::vector<Tensor>>& tensors) {
  blocks_.resize(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    Block& block = blocks_[i];
    block.device = tensors[i];
    if (!Leaves(i)) continue;
    block.stored = context_.device.MakeEvent();
    block.loaded = context_.device.MakeEvent();
    int64_t bytes = 0;
    for (const Tensor& tensor : block.device) bytes += tensor.bytes();
    block.memory = std::make_unique<HostBuffer>("offloaded activations");
    char* next = static_cast<char*>(block.memory->Get(context_.device, bytes));
    for (const Tensor& tensor : block.device) {
      block.host.emplace_back(next, tensor.dtype, DeviceKind::kCpu, tensor.shape);
      next += tensor.bytes();
    }
  }
}

void Offload::CopiesFollowCompute() {
  context_.compute.Record(*ready_);
  copies_->Wait(*ready_);
}

void Offload::Claim(size_t block) {
  const auto stage = InStage("offload");
  if (block >= kSets) context_.compute.Wait(*blocks_[block - kSets].stored, "memory.offload_stall");
}

void Offload::Store(size_t block) {
  const auto stage = InStage("offload");
  if (!Leaves(block)) return;
  CopiesFollowCompute();
  const Block& from = blocks_[block];
  for (size_t i = 0; i < from.host.size(); ++i) context_.device.Copy(*copies_, from.host[i], from.device[i]);
  copies_->Record(*from.stored);
}

void Offload::Await(size_t block) {
  const auto stage = InStage("offload");
  if (Leaves(block)) context_.compute.Wait(*blocks_[block].loaded, "memory.offload_stall");
}

void Offload::Release(size_t block) {
  const auto stage = InStage("offload");
  if (block < kSets) return;
  CopiesFollowCompute();
  const Block& to = blocks_[block - kSets];
  for (size_t i = 0; i < to.host.size(); ++i) context_.device.Copy(*copies_, to.device[i], to.host[i]);
  copies_->Record(*to.loaded);
}

}  // namespace longspan
