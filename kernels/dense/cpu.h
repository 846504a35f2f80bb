// The dense operations on the CPU, in F32 or F64: all floating tensors of one call have one type, all tensors are
// contiguous. Each family's file has its launchers: product_cpu.cc, norm_cpu.cc, rope_cpu.cc, pointwise_cpu.cc,
// embedding_cpu.cc.
#pragma once

#include "kernels/dense/ops.h"

namespace longspan {

class CpuDense final : public DenseOps {
 public:
  void MatMul(Stream& stream, const MatMulArgs& args) override;
  void RmsNorm(Stream& stream, const RmsNormArgs& args) override;
  void RmsNormBackward(Stream& stream, const RmsNormArgs& args, const RmsNormGradient& gradient) override;
  void Rope(Stream& stream, const RopeArgs& args) override;
  void SwiGlu(Stream& stream, const SwiGluArgs& args) override;
  void SwiGluBackward(Stream& stream, const SwiGluArgs& args, const SwiGluGradient& gradient) override;
  void Embedding(Stream& stream, const EmbeddingArgs& args) override;
  void EmbeddingBackward(Stream& stream, const EmbeddingArgs& args, const EmbeddingGradient& gradient) override;
  void Gate(Stream& stream, const GateArgs& args) override;
  void GateBackward(Stream& stream, const GateArgs& args, const GateGradient& gradient) override;
  void Add(Stream& stream, const Tensor& x, const Tensor& y) override;
};

}  // namespace longspan
