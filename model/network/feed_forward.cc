#include "model/network/feed_forward.h"

#include <cmath>

namespace longspan {

FeedForward::FeedForward(const Context& context, const ModelConfig& config, bool keep, const std::string& prefix,
                         ParamTable* params)
    : context_(context), width_(config.ffn), keep_(keep), prefix_(prefix) {
  const int64_t hidden = config.hidden;
  // A projection of unit-variance inputs keeps unit variance; what is added to the stream starts smaller by depth
  // (GPT-2).
  const Init from_stream{0, 1 / std::sqrt(static_cast<double>(hidden))};
  const Init to_stream{0, 1 / std::sqrt(2.0 * static_cast<double>(config.layers * width_))};
  gate_ = &params->Add(prefix + ".gate.weight", {hidden, width_}, from_stream, true);
  up_ = &params->Add(prefix + ".up.weight", {hidden, width_}, from_stream, true);
  down_ = &params->Add(prefix + ".down.weight", {width_, hidden}, to_stream, true);
}

void FeedForward::Reserve(Arena& arena, FeedForwardWorkspace* workspace) {
  const Shape kept{keep_ ? context_.tokens() : chunk(), width_}, part{chunk(), width_};
  arena.Reserve(&kept_.gate, MemoryUse::kActivations, prefix_ + ".gate", context_.dtype, kept);
  arena.Reserve(&kept_.up, MemoryUse::kActivations, prefix_ + ".up", context_.dtype, kept);
  arena.Reserve(&kept_.act, MemoryUse::kActivations, prefix_ + ".act", context_.dtype, kept);
  if (!workspace) return;
  arena.Reserve(&workspace->d_gate, MemoryUse::kWorkspace, "backward.d_gate", context_.dtype, part);
  arena.Reserve(&workspace->d_up, MemoryUse::kWorkspace, "backward.d_up", context_.dtype, part);
  arena.Reserve(&workspace->d_act, MemoryUse::kWorkspace, "backward.d_act", context_.dtype, part);
}

FeedForward::Chunk FeedForward::ChunkAt(int64_t begin, int64_t rows) const {
  const int64_t at = keep_ ? begin : 0;
  return {kept_.gate.Rows(at, rows), kept_.up.Rows(at, rows), kept_.act.Rows(at, rows)};
}

void FeedForward::Activate(const Tensor& x, const Chunk& chunk) {
  MatMul({.a = x, .b = gate_->weight, .c = chunk.gate});
  MatMul({.a = x, .b = up_->weight, .c = chunk.up});
  context_.ops.dense->SwiGlu(context_.compute, {chunk.gate, chunk.up, chunk.act});
}

void FeedForward::Forward(const Tensor& x, const Tensor& residual, const Tensor& y) {
  for (int64_t begin = 0; begin < context_.tokens(); begin += kChunk) {
    const int64_t rows = std::min(kChunk, context_.tokens() - begin);
    const Chunk chunk = ChunkAt(begin, rows);
    Activate(x.Rows(begin, rows), chunk);
    MatMul({.a = chunk.act, .b = down_->weight, .c = y.Rows(begin, rows), .add = residual.Rows(begin, rows)});
  }
}

void FeedForward::Backward(const FeedForwardWorkspace& workspace, const Tensor& x, const Tensor& d_y,
                           const Tensor& d_x) {
  for (int64_t begin = 0; begin < context_.tokens(); begin += kChunk) {
    const int64_t rows = std::min(kChunk, context_.tokens() - begin);
    const Chunk chunk = ChunkAt(begin, rows);
    const Tensor x_rows = x.Rows(begin, rows), d_y_rows = d_y.Rows(begin, rows), d_x_rows = d_x.Rows(begin, rows);
    const Tensor d_act = workspace.d_act.Rows(0, rows), d_gate = workspace.d_gate.Rows(0, rows),
                 d_up = workspace.d_up.Rows(0, rows);
    if (!keep_) Activate(x_rows, chunk);
    MatMul({.a = chunk.act, .b = d_y_rows, .c = down_->gradient, .transpose_a = true, .accumulate = true});
    MatMul({.a = d_y_rows, .b = down_->weight, .c = d_act, .transpose_b = true});
    context_.ops.dense->SwiGluBackward(context_.compute, {chunk.gate, chunk.up, chunk.act}, {d_act, d_gate, d_up});
    MatMul({.a = x_rows, .b = d_gate, .c = gate_->gradient, .transpose_a = true, .accumulate = true});
    MatMul({.a = x_rows, .b = d_up, .c = up_->gradient, .transpose_a = true, .accumulate = true});
    MatMul({.a = d_gate, .b = gate_->weight, .c = d_x_rows, .transpose_b = true});
    MatMul({.a = d_up, .b = up_->weight, .c = d_x_rows, .transpose_b = true, .accumulate = true});
  }
}

}  // namespace longspan
