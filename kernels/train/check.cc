#include "kernels/train/check.h"

#include <algorithm>

namespace longspan {

DType CheckLinearCrossEntropy(const Operation& operation, const LinearCrossEntropyArgs& args) {
  const DType dtype = RequireFloat(operation, "x", args.x), sums = SumType(operation, dtype);
  RequireRank(operation, "x", args.x, 2);
  RequireRank(operation, "weight", args.weight, 2);
  const int64_t tokens = args.x.dim(0), width = args.x.dim(1), vocabulary = args.weight.dim(0);
  RequireTensor(operation, "weight", args.weight, dtype, {vocabulary, width});
  RequireTensor(operation, "targets", args.targets, DType::kI32, {tokens});
  RequireTensor(operation, "loss", args.loss, sums, {tokens});
  LS_CHECK(vocabulary > 0, "{}: weight: expected a vocabulary, found {}", operation.name, args.weight.shape.ToString());
  LS_CHECK(args.chunk > 0, "{}: chunk: expected a positive number of tokens, found {}", operation.name, args.chunk);
  if (args.d_x) {
    RequireTensor(operation, "scale", args.scale, DType::kF64, {1});
    RequireTensor(operation, "d_x", args.d_x, dtype, args.x.shape);
  }
  if (args.d_weight) {
    LS_CHECK(args.d_x, "{}: d_weight is given without d_x: expected both or none", operation.name);
    RequireTensor(operation, "d_weight", args.d_weight, sums, args.weight.shape);
  }
  return dtype;
}

DType CheckAdamW(const Operation& operation, const AdamWArgs& args) {
  const DType dtype = RequireFloat(operation, "weight", args.weight), sums = SumType(operation, dtype);
  RequireRank(operation, "weight", args.weight, 1);
  RequireTensor(operation, "gradient", args.gradient, sums, args.weight.shape);
  RequireTensor(operation, "m", args.m, sums, args.weight.shape);
  RequireTensor(operation, "v", args.v, sums, args.weight.shape);
  RequireTensor(operation, "grad_scale", args.grad_scale, DType::kF64, {1});
  LS_CHECK(args.step >= 1, "{}: step: expected 1 for the first, found {}", operation.name, args.step);
  LS_CHECK(args.beta1 >= 0 && args.beta1 < 1 && args.beta2 >= 0 && args.beta2 < 1,
           "{}: expected beta1 and beta2 in [0,1), found {} and {}", operation.name, args.beta1, args.beta2);
  return dtype;
}

DType CheckSum(const Operation& operation, const Tensor& x, const Tensor& sum) {
  const DType dtype = RequireFloat(operation, "x", x);
  RequireTensor(operation, "sum", sum, DType::kF64, {1});
  return dtype;
}

void CheckClipScale(const Operation& operation, const ClipScaleArgs& args) {
  RequireTensor(operation, "sum_of_squares", args.sum_of_squares, DType::kF64, {1});
  if (args.loss) RequireTensor(operation, "loss", args.loss, DType::kF64, {1});
  RequireTensor(operation, "scale", args.scale, DType::kF64, {1});
  LS_CHECK(args.max_norm >= 0, "{}: max_norm: expected 0 (no clipping) or more, found {}", operation.name,
           args.max_norm);
}

void CheckHash(const Operation& operation, const Tensor& x, const Tensor& hash) {
  RequireContiguous(operation, "x", x);
  RequireTensor(operation, "hash", hash, DType::kI64, {1});
  LS_CHECK(x.bytes() % 8 == 0, "{}: x: expected a multiple of 8 bytes, found {}", operation.name, x.bytes());
}

Cost LinearCrossEntropyCost(const LinearCrossEntropyArgs& args) {
  const double products = args.d_weight ? 3 : args.d_x ? 2 : 1;
  return {2.0 * products * args.x.size() * args.weight.dim(0),
          products * static_cast<double>(args.x.bytes() + args.weight.bytes())};
}

int64_t LossChunk(const LinearCrossEntropyArgs& args) {
  constexpr int64_t kScratchBytes = int64_t{384} << 20, kUnit = 128;
  const int64_t row = args.weight.dim(0) * (DTypeSize(DType::kF32) + DTypeSize(args.x.dtype));
  return std::min(args.x.dim(0), std::max(args.chunk, kScratchBytes / row / kUnit * kUnit));
}

int64_t LossScratchBytes(const LinearCrossEntropyArgs& args) {
  const int64_t of_gradient = args.d_x ? DTypeSize(args.x.dtype) : 0;
  return LossChunk(args) * args.weight.dim(0) * (DTypeSize(DType::kF32) + of_gradient);
}

// Gradient, m, v and the weights are read, all but the gradient written. A weight beside its master is written only.
Cost AdamWCost(const AdamWArgs& args) {
  const double weights = args.master ? 2.0 * args.master.bytes() + args.weight.bytes() : 2.0 * args.weight.bytes();
  return {14.0 * args.weight.size(), 5.0 * args.m.bytes() + weights};
}

Cost SumCost(const Tensor& x) { return {2.0 * x.size(), 1.0 * x.bytes()}; }

}  // namespace longspan
