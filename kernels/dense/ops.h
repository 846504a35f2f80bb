// Dense operations: matrix products, norms, rotary embedding, feed-forward activation, embedding, gates.
//
// Forward operations overwrite; where a gradient accumulates, its declaration says so. Null gradients are not wanted.
// CPU forward results of a token do not depend on which other tokens are in the call.
#pragma once

#include <memory>
#include <vector>

#include "kernels/dense/rope_config.h"
#include "runtime/device.h"
#include "runtime/tensor.h"

namespace longspan {

// c = op(a) * op(b), c += with `accumulate`, or plus another tensor, `add`. Two-dimensional, contiguous.
//   forward          y[T,out]  = x[T,in] w[in,out]                 -
//   residual branch  y[T,out]  = r[T,out] + x w                    add
//   input gradient   dx[T,in]  = dy[T,out] w^T                     transpose_b
//   weight gradient  dw[in,out] += x^T dy                          transpose_a, accumulate
struct MatMulArgs {
  Tensor a;
  Tensor b;
  Tensor c;
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;
  Tensor add{};  // as c, but not c itself; null: nothing is added
};

// y = x / sqrt(mean(x^2) + eps) * weight, over the last dimension. x may be [T,D] or [T,heads,K] (QK-norm).
struct RmsNormArgs {
  Tensor x;       // [rows..,W]
  Tensor weight;  // [W]
  double eps = 0;
  Tensor y;  // as x; may be x itself only when no backward follows
};
struct RmsNormGradient {
  Tensor d_y;
  Tensor d_x;       // accumulated when accumulate_d_x, else overwritten (may then be d_y itself)
  Tensor d_weight;  // [W], accumulated
  bool accumulate_d_x = false;
};

// Rotary position embedding, Hugging Face Llama's form: channel c pairs with c+K/2. y = R(position) x * factor.
// `inverse` applies the transpose: the backward (y and x then are gradients). x and y may be the same tensor.
struct RopeArgs {
  Tensor x;           // [rows,heads,K]
  Tensor y;           // [rows,heads,K]
  Tensor positions;   // [rows] I32
  Tensor frequency;   // [K/2] F64, radians per position
  double factor = 1;  // YaRN's attention factor
  bool inverse = false;
};

// y = silu(gate) * up.
struct SwiGluArgs {
  Tensor gate;  // [T,F]
  Tensor up;    // [T,F]
  Tensor y;     // [T,F]
};
struct SwiGluGradient {
  Tensor d_y;
  Tensor d_gate;  // overwritten
  Tensor d_up;    // overwritten
};

struct EmbeddingArgs {
  Tensor tokens;  // [T] I32; out of [0,X) throws Error (data)
  Tensor weight;  // [X,D]
  Tensor y;       // [T,D]
};
struct EmbeddingGradient {
  Tensor d_y;       // [T,D]
  Tensor d_weight;  // [X,D], accumulated
};

// y = sigmoid(x + bias), the gates of NSA.
struct GateArgs {
  Tensor x;     // [T,W]
  Tensor bias;  // [W]
  Tensor y;     // [T,W]
};
struct GateGradient {
  Tensor d_y;
  Tensor d_x;     // overwritten
  Tensor d_bias;  // [W], accumulated
};

class DenseOps {
 public:
  virtual ~DenseOps() = default;
  virtual void MatMul(Stream& stream, const MatMulArgs& args) = 0;
  virtual void RmsNorm(Stream& stream, const RmsNormArgs& args) = 0;
  virtual void RmsNormBackward(Stream& stream, const RmsNormArgs& args, const RmsNormGradient& gradient) = 0;
  virtual void Rope(Stream& stream, const RopeArgs& args) = 0;
  virtual void SwiGlu(Stream& stream, const SwiGluArgs& args) = 0;
  virtual void SwiGluBackward(Stream& stream, const SwiGluArgs& args, const SwiGluGradient& gradient) = 0;
  virtual void Embedding(Stream& stream, const EmbeddingArgs& args) = 0;
  virtual void EmbeddingBackward(Stream& stream, const EmbeddingArgs& args, const EmbeddingGradient& gradient) = 0;
  virtual void Gate(Stream& stream, const GateArgs& args) = 0;
  virtual void GateBackward(Stream& stream, const GateArgs& args, const GateGradient& gradient) = 0;
  virtual void Add(Stream& stream, const Tensor& x, const Tensor& y) = 0;  // y += x, same shape
};

std::unique_ptr<DenseOps> MakeCpuDense();
std::unique_ptr<DenseOps> MakePlannedDense(DeviceKind kind);

// The angles of RoPE: K/2 frequencies theta^(-2i/K), with YaRN's blend of interpolated and original ones when
// configured, and its attention factor (1 without scaling).
struct RopeTable {
  std::vector<double> frequency;
  double factor = 1;
};
RopeTable MakeRopeTable(const RopeConfig& config, int64_t key_width);

}  // namespace longspan
