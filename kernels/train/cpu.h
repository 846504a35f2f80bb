// The operations of the training step on the CPU, in F32 or F64: all floating tensors of one call have one type, sums
// and the clipping scale are F64, all tensors are contiguous. Files: loss_cpu.cc, adamw_cpu.cc, hash_cpu.cc.
#pragma once

#include "kernels/train/ops.h"

namespace longspan {

class CpuTrain final : public TrainOps {
 public:
  void LinearCrossEntropy(Stream& stream, const LinearCrossEntropyArgs& args) override;
  void AdamW(Stream& stream, const AdamWArgs& args) override;
  void AddSumOfSquares(Stream& stream, const Tensor& x, const Tensor& sum) override;
  void AddSum(Stream& stream, const Tensor& x, const Tensor& sum) override;
  void ClipScale(Stream& stream, const ClipScaleArgs& args) override;
  void Hash(Stream& stream, const Tensor& x, const Tensor& hash) override;
};

}  // namespace longspan
