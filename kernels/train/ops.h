// Operations of the training step around the network: loss, optimizer, sums.
#pragma once

#include <limits>
#include <memory>

#include "runtime/device.h"
#include "runtime/tensor.h"

namespace longspan {

// Linear cross entropy fused over chunks of tokens: logits = x w^T exist for `chunk` tokens at a time only.
// loss[t] = logsumexp(logits[t]) - logits[t,target]; target -1 = no label, loss 0.
struct LinearCrossEntropyArgs {
  Tensor x;        // [T,D]
  Tensor weight;   // [X,D]
  Tensor targets;  // [T] I32, -1 = ignored
  int64_t chunk = 256;
  Tensor loss;  // [T] output, per token
  // With gradients (d_x not null): d loss_total = scale[0] * sum of loss[t].
  Tensor scale;     // [1] F64
  Tensor d_x;       // [T,D], overwritten
  Tensor d_weight;  // [X,D], accumulated
};

// AdamW (arXiv 1711.05101) with bias correction; decay is decoupled: weight -= lr * (m^ / (sqrt(v^)+eps) +
// decay*weight).
struct AdamWArgs {
  Tensor weight;      // [n] updated
  Tensor gradient;    // [n]
  Tensor m, v;        // [n] updated
  Tensor master;      // [n] F32 or null: the weight then is its rounded copy
  Tensor grad_scale;  // [1] multiplies the gradient, from ClipScale; NaN: nothing is updated
  double learning_rate = 0;
  double beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  int64_t step = 1;  // 1 for the first
};

// scale[0] = min(1, max_norm / norm), norm = sqrt(sum_of_squares[0]); 1 when max_norm is 0. NaN, with which AdamW
// updates nothing, when the norm or the loss is not finite or above its limit.
struct ClipScaleArgs {
  Tensor sum_of_squares;  // [1] F64, of the gradient
  Tensor loss;            // [1] F64, or null
  double max_norm = 0;
  double norm_limit = std::numeric_limits<double>::infinity();
  double loss_limit = std::numeric_limits<double>::infinity();
  Tensor scale;  // [1] F64
};

class TrainOps {
 public:
  virtual ~TrainOps() = default;
  virtual void LinearCrossEntropy(Stream& stream, const LinearCrossEntropyArgs& args) = 0;
  virtual void AdamW(Stream& stream, const AdamWArgs& args) = 0;
  // sum[0] += sum of x^2, in F64, in an order fixed by the size of x.
  virtual void AddSumOfSquares(Stream& stream, const Tensor& x, const Tensor& sum) = 0;
  // sum[0] += sum of x, the same way; for losses. sum is F64.
  virtual void AddSum(Stream& stream, const Tensor& x, const Tensor& sum) = 0;
  virtual void ClipScale(Stream& stream, const ClipScaleArgs& args) = 0;
  // hash[0] I64 of the bytes of x, a multiple of 8 of them: the same on every backend.
  virtual void Hash(Stream& stream, const Tensor& x, const Tensor& hash) = 0;
};

std::unique_ptr<TrainOps> MakeCpuTrain();
std::unique_ptr<TrainOps> MakePlannedTrain(DeviceKind kind);

}  // namespace longspan
