// The feed-forward layer: y = residual + (silu(x Wg) * (x Wu)) Wd.
//
// It works on kChunk tokens at a time, so that its wide gradients exist for one chunk only, and its wide activations
// too when they are not kept.
#pragma once

#include <algorithm>
#include <string>

#include "model/config.h"
#include "model/context.h"
#include "model/params.h"

namespace longspan {

// Gradients of one chunk; all layers share them.
struct FeedForwardWorkspace {
  Tensor d_gate, d_up, d_act;  // [chunk,F]
};

class FeedForward {
 public:
  static constexpr int64_t kChunk = 8192;

  // Adds its parameters under `prefix` ("layers.0.ffn"). `keep`: the backward finds the activations of the forward;
  // otherwise it makes them again.
  FeedForward(const Context& context, const ModelConfig& config, bool keep, const std::string& prefix,
              ParamTable* params);

  void Reserve(Arena& arena, FeedForwardWorkspace* workspace);
  // y = residual + layer(x), [T,D] all three. x is kept by the caller for Backward.
  void Forward(const Tensor& x, const Tensor& residual, const Tensor& y);
  // d_x [T,D] is overwritten; d_y [T,D] is the gradient of y.
  void Backward(const FeedForwardWorkspace& workspace, const Tensor& x, const Tensor& d_y, const Tensor& d_x);

 private:
  struct Chunk {
    Tensor gate, up, act;  // [rows,F]
  };
  int64_t chunk() const { return std::min(kChunk, context_.tokens()); }
  Chunk ChunkAt(int64_t begin, int64_t rows) const;
  void Activate(const Tensor& x, const Chunk& chunk);
  void MatMul(const MatMulArgs& args) { context_.ops.dense->MatMul(context_.compute, args); }

  const Context& context_;
  int64_t width_;  // F
  bool keep_;
  std::string prefix_;
  Param *gate_, *up_, *down_;
  Chunk kept_;  // [T,F], or [chunk,F] when not kept
};

}  // namespace longspan
