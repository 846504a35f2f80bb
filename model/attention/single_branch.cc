#include "model/attention/single_branch.h"

#include "runtime/place.h"

namespace longspan {

SingleBranchCore::SingleBranchCore(const Context& context, const Sizes& sizes, int64_t window, double scale)
    : context_(context), sizes_(sizes), window_(window > 0 ? window : context.layout.sequence()), scale_(scale) {
  const Layout& layout = context.layout;
  exchange_ = window > 0 ? MakeHaloExchange(layout, context.cp, *context.ops.dense, window - 1)
                         : MakeGatherExchange(layout, context.cp, 1, layout.unit());
  ready_ = context.device.MakeEvent();
  done_ = context.device.MakeEvent();
}

void SingleBranchCore::Reserve(Arena& arena, const std::string& name, MemoryUse outputs) {
  const auto [heads, groups, key_width, value_width] = sizes_;
  const int64_t tokens = context_.tokens(), rows = exchange_->rows();
  exchange_->Reserve(arena, name + ".exchange", context_.dtype, context_.gradient_dtype,
                     {{groups, key_width}, {groups, value_width}});
  arena.Reserve(&q_, MemoryUse::kActivations, name + ".q", context_.dtype, {tokens, heads, key_width});
  arena.Reserve(&k_, MemoryUse::kActivations, name + ".k", context_.dtype, {rows, groups, key_width});
  arena.Reserve(&v_, MemoryUse::kActivations, name + ".v", context_.dtype, {rows, groups, value_width});
  arena.Reserve(&out_, outputs, name + ".out", context_.dtype, {tokens, heads, value_width});
  arena.Reserve(&lse_, outputs, name + ".lse", context_.gradient_dtype, {tokens, heads});
}

void SingleBranchCore::ReserveGradients(Arena& arena, AttentionGradients* gradients) {
  const auto [heads, groups, key_width, value_width] = sizes_;
  const int64_t rows = exchange_->rows();
  const auto reserve = [&](Tensor* slot, const char* name, const Shape& shape) {
    arena.Reserve(slot, MemoryUse::kWorkspace, std::string("backward.") + name, context_.gradient_dtype, shape);
  };
  reserve(&gradients->d_q, "d_q", {context_.tokens(), heads, key_width});
  reserve(&gradients->rows[0].rotated_k, "d_k", {rows, groups, key_width});
  reserve(&gradients->rows[0].v, "d_v", {rows, groups, value_width});
}

void SingleBranchCore::Start() {
  exchange_->Start(context_.device, context_.comm);
  context_.comm.Synchronize();
  own_ = {OwnRows(0, {{}, k_, v_})};
}

KeyRows SingleBranchCore::OwnRows(int, const KeyRows& buffers) const {
  const auto own = [this](const Tensor& x) { return x.Rows(exchange_->own_row(), context_.tokens()); };
  return {{}, own(buffers.rotated_k), own(buffers.v)};
}

WindowArgs SingleBranchCore::Branch(const SequenceInputs& inputs) const {
  WindowArgs args;
  args.segments = context_.segments();
  args.doc_start = inputs.doc_start;
  args.q = q_;
  args.kv = {k_, v_, exchange_->pages()};
  args.scale = scale_;
  args.o = out_;
  args.lse = lse_;
  args.window = window_;
  return args;
}

void SingleBranchCore::LendRows() {
  const auto stage = InStage("attention_transfer");
  context_.compute.Record(*ready_);
  context_.comm.Wait(*ready_);
  exchange_->Forward(context_.comm, {k_, v_});
  context_.comm.Record(*done_);
}

void SingleBranchCore::Forward(const SequenceInputs& inputs) {
  restored_ = false;
  {
    const auto stage = InStage("attention_transfer");
    context_.compute.Wait(*done_, "stall.rows");
  }
  const auto stage = InStage("attention");
  context_.ops.attention->Window(context_.compute, Branch(inputs));
}

void SingleBranchCore::Backward(const SequenceInputs& inputs, const Tensor& d_out,
                                const AttentionGradients& gradients) {
  Stream& compute = context_.compute;
  const auto& [unused, d_k, d_v] = gradients.rows[0];
  {
    const auto stage = InStage("attention");
    for (const Tensor& x : {d_k, d_v}) context_.ops.rows->Zero(compute, x);
    if (restored_) compute.Wait(*done_, "stall.restored_rows");
    context_.ops.attention->WindowBackward(compute, Branch(inputs), {d_out, gradients.d_q, d_k, d_v, {}, true});
  }
  const auto stage = InStage("attention_transfer");
  compute.Record(*ready_);
  context_.comm.Wait(*ready_);
  exchange_->Backward(context_.comm, {d_k, d_v});
  context_.comm.Record(*done_);
}

void SingleBranchCore::AwaitRows() {
  const auto stage = InStage("attention_transfer");
  context_.compute.Wait(*done_, "stall.row_gradients");
}

}  // namespace longspan
