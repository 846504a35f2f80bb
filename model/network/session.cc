#include "model/network/session.h"

#include <cstring>

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
  arena_.Reserve(&inputs_.tokens, MemoryUse::kActivations, "inputs.tokens", DType::kI32, tokens);
  arena_.Reserve(&inputs_.targets, MemoryUse::kActivations, "inputs.targets", DType::kI32, tokens);
  arena_.Reserve(&inputs_.positions, MemoryUse::kActivations, "inputs.positions", DType::kI32, tokens);
  arena_.Reserve(&inputs_.summary_positions, MemoryUse::kActivations, "inputs.summary_positions", DType::kI32,
                 summaries);
  arena_.Reserve(&inputs_.doc_start, MemoryUse::kActivations, "inputs.doc_start", DType::kI32, {layout_.sequence()});
  arena_.Reserve(&inputs_.loss_scale, MemoryUse::kActivations, "inputs.loss_scale", DType::kF64, {1});
}

void Session::Start(uint64_t seed) {
  arena_.Commit(device_);
  model_->Start(seed);
}

void Session::Load(const Batch& batch, double loss_scale, size_t slot) {
  while (staged_.size() <= slot) staged_.emplace_back("batches on their way to the device");
  int64_t bytes = sizeof loss_scale;
  for (const Tensor& x :
       {inputs_.tokens, inputs_.targets, inputs_.positions, inputs_.summary_positions, inputs_.doc_start}) {
    bytes += x.bytes();
  }
  auto* next = static_cast<char*>(staged_[slot].Get(device_, bytes));
  const auto upload = [&](const Tensor& to, const void* from) {
    const Tensor staged(next, to.dtype, DeviceKind::kCpu, to.shape);
    std::memcpy(staged.data, from, to.bytes());
    device_.Copy(*compute_, to, staged);
    next += to.bytes();
  };
  upload(inputs_.loss_scale, &loss_scale);
  upload(inputs_.tokens, batch.tokens.data());
  upload(inputs_.targets, batch.targets.data());
  upload(inputs_.positions, batch.positions.data());
  upload(inputs_.summary_positions, batch.summary_positions.data());
  upload(inputs_.doc_start, batch.doc_start.data());
}

}  // namespace longspan
