#include "model/network/session.h"

#include <cstring>

#include "runtime/rounding.h"

namespace longspan {

Session::Session(const SessionConfig& config, Device& device, Communicator& cp, DType dtype, Ops ops)
    : device_(device),
      ops_(ops.dense ? std::move(ops) : MakeOps(device.kind())),
      compute_(device.MakeStream("compute")),
      comm_(device.MakeStream("comm")),
      layout_(config.parallel.layout, config.sequence_length, cp.size(), config.model.nsa.select_block) {
  ops_.attention->LeaveProcessors(*compute_, config.parallel.transfer_processors);
  const DType gradient_dtype = dtype == DType::kBf16 ? DType::kF32 : dtype;
  context_.emplace(Context{device_, ops_, *compute_, *comm_, cp, layout_, dtype, gradient_dtype});
  model_ = std::make_unique<Transformer>(*context_, config.model, config.parallel.selected_exchange, config.keep);
  model_->Reserve(arena_);

  const Shape tokens{layout_.tokens()}, summaries{layout_.tokens() / config.model.nsa.stride};
  const auto part = [&](DType type, const Shape& shape) { return Tensor(nullptr, type, device.kind(), shape); };
  inputs_ = {.tokens = part(DType::kI32, tokens),
             .targets = part(DType::kI32, tokens),
             .positions = part(DType::kI32, tokens),
             .summary_positions = part(DType::kI32, summaries),
             .doc_start = part(DType::kI32, {layout_.sequence()}),
             .loss_scale = part(DType::kF64, {1})};
  int64_t bytes = 0;
  for (const Tensor* x : Parts()) bytes += RoundUp(x->bytes(), kTensorAlign);
  arena_.Reserve(&batch_, MemoryUse::kActivations, "inputs", DType::kU8, {bytes});
}

std::array<Tensor*, 6> Session::Parts() {
  return {&inputs_.tokens,    &inputs_.targets,   &inputs_.positions, &inputs_.summary_positions,
          &inputs_.doc_start, &inputs_.loss_scale};
}

void Session::Start(uint64_t seed) {
  arena_.Commit(device_);
  char* next = static_cast<char*>(batch_.data);
  for (Tensor* x : Parts()) {
    x->data = next;
    next += RoundUp(x->bytes(), kTensorAlign);
  }
  model_->Start(seed);
}

void Session::Load(const Batch& batch, double loss_scale, size_t slot) {
  while (staged_.size() <= slot) staged_.emplace_back("batches on their way to the device");
  const Tensor staged(staged_[slot].Get(device_, batch_.bytes()), DType::kU8, DeviceKind::kCpu, batch_.shape);
  LS_CHECK(std::ssize(batch.tokens) == layout_.tokens() && batch.targets.size() == batch.tokens.size() &&
               batch.positions.size() == batch.tokens.size() &&
               std::ssize(batch.summary_positions) == inputs_.summary_positions.size() &&
               std::ssize(batch.doc_start) == layout_.sequence(),
           "a batch of {} tokens of {} for {} of {}", batch.tokens.size(), batch.doc_start.size(), layout_.tokens(),
           layout_.sequence());
  const std::array<const void*, 6> from = {batch.tokens.data(),    batch.targets.data(),
                                           batch.positions.data(), batch.summary_positions.data(),
                                           batch.doc_start.data(), &loss_scale};
  char* next = static_cast<char*>(staged.data);
  for (size_t i = 0; const Tensor* x : Parts()) {
    std::memcpy(next, from[i++], x->bytes());
    next += RoundUp(x->bytes(), kTensorAlign);
  }
  device_.Copy(*compute_, batch_, staged);
}

}  // namespace longspan
