#include "model/network/session.h"

namespace longspan {

Session::Session(const SessionConfig& config, Device& device, Communicator& cp, DType dtype, Ops ops)
    : device_(device),
      ops_(ops.dense ? std::move(ops) : MakeOps(device.kind())),
      compute_(device.MakeStream("compute")),
      comm_(device.MakeStream("comm")),
      layout_(config.parallel.layout, config.sequence_length, cp.size(), config.model.nsa.select_block) {
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

void Session::Load(const Batch& batch, double loss_scale) {
  const auto upload = [this](const Tensor& to, const std::vector<int32_t>& from) {
    device_.Copy(*compute_, to, HostView(from.data(), {static_cast<int64_t>(from.size())}));
  };
  device_.Copy(*compute_, inputs_.loss_scale, HostView(&loss_scale, {1}));
  upload(inputs_.tokens, batch.tokens);
  upload(inputs_.targets, batch.targets);
  upload(inputs_.positions, batch.positions);
  upload(inputs_.summary_positions, batch.summary_positions);
  upload(inputs_.doc_start, batch.doc_start);
  compute_->Synchronize();
}

}  // namespace longspan
