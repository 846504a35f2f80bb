// What the launchers of the training step ask of their arguments on either backend, and what their work costs.
#pragma once

#include "kernels/base/arguments.h"
#include "kernels/train/ops.h"
#include "runtime/trace.h"

namespace longspan {

// Each returns the floating type of the call (of x or the weight) or throws Error naming `operation` and the argument.
// On a GPU losses, gradients of weights and the optimizer's state are F32 (SumType).
DType CheckLinearCrossEntropy(const Operation& operation, const LinearCrossEntropyArgs& args);
DType CheckAdamW(const Operation& operation, const AdamWArgs& args);  // but for master
DType CheckSum(const Operation& operation, const Tensor& x, const Tensor& sum);
void CheckClipScale(const Operation& operation, const ClipScaleArgs& args);
void CheckHash(const Operation& operation, const Tensor& x, const Tensor& hash);

Cost LinearCrossEntropyCost(const LinearCrossEntropyArgs& args);
// On a GPU: tokens whose logits and gradients are there at a time, args.chunk or as many as 384 MiB hold; and the bytes
// these take.
int64_t LossChunk(const LinearCrossEntropyArgs& args);
int64_t LossScratchBytes(const LinearCrossEntropyArgs& args);
Cost AdamWCost(const AdamWArgs& args);
Cost SumCost(const Tensor& x);

}  // namespace longspan
