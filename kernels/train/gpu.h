// The operations of the training step on a GPU. Activations and weights F32 or BF16, gradients of weights, optimizer
// state and losses F32, sums and the clipping scale F64. Contracts that differ from the CPU's:
//
//   LinearCrossEntropy   a target outside the vocabulary gives NaN, and Error (data) from the stream's Synchronize
//   GatherRows, ...      a row index outside the tensor is skipped, and Error (data) comes from Synchronize
//
// Files: loss_gpu.cu, adamw_gpu.cu, sum_gpu.cu; of kernels/rows index_gpu.cu, cast_gpu.cu.
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
  void ClipScale(Stream& stream, const Tensor& sum_of_squares, double max_norm, const Tensor& scale) override;
  void GatherRows(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) override;
  void AddRows(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) override;
  void ScatterRows(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) override;
  void Copy(Stream& stream, const Tensor& from, const Tensor& to) override;
  void Zero(Stream& stream, const Tensor& x) override;

 private:
  MatMulGpu matmul_{"the loss's matrix products"};
  GpuScratch loss_scratch_{"the loss"};
  GpuScratch sum_scratch_{"sums"};
  GpuScratch pack_scratch_{"rows added by index"};
};

std::unique_ptr<TrainOps> MakeGpuTrain();

}  // namespace longspan
