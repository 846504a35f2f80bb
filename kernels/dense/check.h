// What the dense launchers ask of their arguments on either backend, and what their work costs.
#pragma once

#include "kernels/base/arguments.h"
#include "kernels/dense/ops.h"
#include "runtime/trace.h"

namespace longspan {

// Each returns the floating type of the call or throws Error naming `operation` and the argument. On the CPU all
// floating tensors have that type. On a GPU gradients of weights are F32 (SumType), and F32 or BF16 whatever the call's
// type are c of a product, y of Rope, d_y of a gate and of the embedding.
DType CheckMatMul(const Operation& operation, const MatMulArgs& args);
DType CheckRmsNorm(const Operation& operation, const RmsNormArgs& args);  // but for y
DType CheckRmsNormGradient(const Operation& operation, const RmsNormArgs& args, const RmsNormGradient& gradient);
DType CheckRope(const Operation& operation, const RopeArgs& args);
DType CheckSwiGlu(const Operation& operation, const SwiGluArgs& args);  // but for y
DType CheckSwiGluGradient(const Operation& operation, const SwiGluArgs& args, const SwiGluGradient& gradient);
DType CheckEmbedding(const Operation& operation, const EmbeddingArgs& args);
DType CheckEmbeddingGradient(const Operation& operation, const EmbeddingArgs& args, const EmbeddingGradient& gradient);
DType CheckGate(const Operation& operation, const GateArgs& args);
DType CheckGateGradient(const Operation& operation, const GateArgs& args, const GateGradient& gradient);
DType CheckAdd(const Operation& operation, const Tensor& x, const Tensor& y);

// Of c = op(a) op(b): c is [m,n], the sum runs over k.
struct MatMulSizes {
  int64_t m, n, k;
};
MatMulSizes SizesOf(const MatMulArgs& args);

Cost MatMulCost(const MatMulArgs& args);
Cost RmsNormCost(const RmsNormArgs& args);
Cost RmsNormBackwardCost(const RmsNormArgs& args, const RmsNormGradient& gradient);
Cost RopeCost(const RopeArgs& args);
Cost SwiGluCost(const SwiGluArgs& args);
Cost SwiGluBackwardCost(const SwiGluArgs& args);
Cost EmbeddingCost(const EmbeddingArgs& args);
Cost EmbeddingBackwardCost(const EmbeddingGradient& gradient);
Cost GateCost(const GateArgs& args);
Cost GateBackwardCost(const GateArgs& args, const GateGradient& gradient);
Cost AddCost(const Tensor& y);

}  // namespace longspan
