// The attention layer: projections, QK-norm, RoPE and gates around an AttentionCore of the configured kind.
//
//   q = rope(norm(x Wq));  per branch k = rope(norm(x Wk)), v = x Wv  (SHARED: one pair for all branches)
//   gates = sigmoid(x Wg + bg);  y = residual + core(q, k, v, gates) Wo
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/attention/core.h"
#include "model/attention/nsa.h"
#include "model/config.h"
#include "model/params.h"

namespace longspan {

// Temporary tensors that all layers share.
struct AttentionWorkspace {
  Tensor gate_logits;  // [T,3H], NSA only
  Tensor d_out;        // [T,H,V]
  Tensor narrow;       // [T*H*max(K,V)], a gradient rounded to the activations' dtype; null when it has that dtype
  std::map<AttentionKind, AttentionGradients> gradients;
};

// Rotation of queries and keys, on the device.
struct Rope {
  Tensor frequency;  // [K/2] F64
  double factor = 1;
};

class AttentionLayer {
 public:
  // Adds its parameters to `params` under `prefix` ("layers.0.attention"). `layer` picks the attention kind.
  AttentionLayer(const Context& context, const ModelConfig& config, SelectedExchange exchange, int64_t layer,
                 const std::string& prefix, ParamTable* params);

  // What the core keeps of its attention (AttentionCore::kept) is of the use `outputs`.
  void Reserve(Arena& arena, AttentionWorkspace* workspace, MemoryUse outputs);
  void Start(const Rope& rope);  // after Commit and Bind

  // y = residual + attention(x), [T,D] all three. x is kept by the caller for Backward. `restore`: the same again after
  // a Forward of which only core().kept() is left.
  void Forward(const SequenceInputs& inputs, const AttentionWorkspace& workspace, const Tensor& x,
               const Tensor& residual, const Tensor& y, bool restore = false);
  // d_x [T,D] is overwritten; d_y [T,D] is the gradient of y, in other memory.
  void Backward(const SequenceInputs& inputs, const AttentionWorkspace& workspace, const Tensor& x, const Tensor& d_y,
                const Tensor& d_x);

  const AttentionCore& core() const { return *core_; }
  NsaCore* nsa() const { return nsa_; }  // null for other kinds

 private:
  struct Projection {  // x W, then QK-norm where there is a norm
    Param* weight = nullptr;
    Param* norm = nullptr;  // null: none
    Tensor input;           // of the norm, kept for the backward
  };
  Projection AddProjection(const std::string& name, int64_t heads, int64_t width, bool norm, ParamTable* params);
  PhiSet<Param*> AddPhi(const std::string& name, int64_t width, ParamTable* params);
  void ReserveNormInput(Arena& arena, Projection* projection, int64_t heads);
  void Project(const Projection& projection, const Tensor& x, const Tensor& y);
  void ProjectBackward(const Projection& projection, const Tensor& x, const Tensor& d_y, const Tensor& d_x,
                       bool accumulate);
  void Rotate(const SequenceInputs& inputs, const Tensor& from, const Tensor& to, bool inverse);
  // A gradient in the activations' dtype, and the same unrotated: in place where it has that dtype, else in `narrow`,
  // until the next call.
  Tensor NarrowOf(const AttentionWorkspace& workspace, const Tensor& gradient) const;
  Tensor Narrow(const AttentionWorkspace& workspace, const Tensor& gradient);
  Tensor Unrotate(const SequenceInputs& inputs, const AttentionWorkspace& workspace, const Tensor& gradient);
  void MatMul(MatMulArgs args);  // of tensors of any rank, taken as [first dimension, rest]

  const Context& context_;
  const ModelConfig& config_;
  std::string prefix_;
  std::unique_ptr<AttentionCore> core_;
  NsaCore* nsa_ = nullptr;  // core_ when it is one
  AttentionKind kind_;
  Projection q_;
  std::vector<Projection> k_, v_;  // as many as the core has rows()
  Param *gate_ = nullptr, *gate_bias_ = nullptr, *o_ = nullptr;
  PhiSet<Param*> phi_k_, phi_v_;
  Rope rope_;
};

}  // namespace longspan
