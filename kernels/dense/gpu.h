// The dense operations on a GPU, in F32 or BF16: activations and weights of one call have one type, gradients of
// weights are F32 and accumulate. Contracts that differ from the CPU's:
//
//   MatMul           a and b alike; c F32 or BF16. Sums in F32 (F32 operands: no TF32). Equal shapes give equal bits; a
//                    row's do not depend on the number of rows either, but where the sum runs over the rows or
//                    cuBLASLt has no one algorithm for them (kernels/matmul/matmul_gpu.cc).
//   Rope, Gate       gradients may come in F32 and leave in the activations' type
//   Embedding        a token outside the vocabulary gives a row of NaN, and Error (data) from the stream's Synchronize
//
// Files: product_gpu.cc, norm_gpu.cu, rope_gpu.cu, pointwise_gpu.cu, embedding_gpu.cu.
#pragma once

#include "kernels/dense/ops.h"
#include "kernels/matmul/matmul_gpu.h"
#include "runtime/gpu.h"

namespace longspan {

class GpuDense final : public DenseOps {
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

 private:
  MatMulGpu matmul_{"matrix products"};
  GpuScratch norm_scratch_{"norms"};
  GpuScratch gate_scratch_{"gates"};
  GpuScratch embedding_scratch_{"the embedding's gradient"};
};

std::unique_ptr<DenseOps> MakeGpuDense();

}  // namespace longspan
