// The operations of the training step on a GPU. Activations and weights F32 or BF16, gradients of weights, optimizer
// state and losses F32, sums and the clipping scale F64. A target outside the vocabulary gives NaN, and
// Error (data) from the stream's Synchronize. Files: loss_gpu.cu, adamw_gpu.cu, sum_gpu.cu,
// hash_gpu.cu.
#pragma once

#include "kernels/matmul/matmul_gpu.h"
#include "kernels/train/ops.h"
#include "runtime/gpu.h"

namespace longspan {

class GpuTrain final : public TrainOps {
 public:
  void LinearCrossEntropy(Stream& stream, const LinearCrossEntropyArgs& args) override;
  void AdamW(Stream& stream, const AdamWArgs& args) override;
  void AddSumOfSquares(Stream& stream, const Tensor& x, const Tensor& sum) override;
  void AddSum(Stream& stream, const Tensor& x, const Tensor& sum) override;
  void ClipScale(Stream& stream, const ClipScaleArgs& args) override;
  void Hash(Stream& stream, const Tensor& x, const Tensor& hash) override;

 private:
  MatMulGpu matmul_{"the loss's matrix products"};
  GpuScratch loss_scratch_{"the loss"};
  GpuScratch sum_scratch_{"sums"};
};

std::unique_ptr<TrainOps> MakeGpuTrain();

}  // namespace longspan
