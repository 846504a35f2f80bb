#include "kernels/dense/check.h"

namespace longspan {
namespace {

// The type of a tensor that may have another than the call's on a GPU.
DType OwnType(const Operation& operation, const char* name, const Tensor& tensor, DType dtype) {
  return operation.device == DeviceKind::kGpu ? RequireFloat(operation, name, tensor) : dtype;
}

}  // namespace

MatMulSizes SizesOf(const MatMulArgs& args) {
  return {args.c.dim(0), args.c.dim(1), args.a.dim(args.transpose_a ? 0 : 1)};
}

DType CheckMatMul(const Operation& operation, const MatMulArgs& args) {
  const DType result = RequireFloat(operation, "c", args.c);
  const DType dtype = OwnType(operation, "a", args.a, result);
  for (const auto& [name, tensor] : {std::pair("a", args.a), std::pair("b", args.b), std::pair("c", args.c)}) {
    RequireRank(operation, name, tensor, 2);
  }
  const auto [m, n, k] = SizesOf(args);
  RequireTensor(operation, "a", args.a, dtype, args.transpose_a ? Shape{k, m} : Shape{m, k});
  RequireTensor(operation, "b", args.b, dtype, args.transpose_b ? Shape{n, k} : Shape{k, n});
  if (args.add) {
    LS_CHECK(!args.accumulate, "{}: add is given with accumulate: expected one of them or none", operation.name);
    RequireTensor(operation, "add", args.add, result, args.c.shape);
    LS_CHECK(args.c.size() == 0 || args.add.data != args.c.data, "{}: add is c itself: ask for accumulate",
             operation.name);
  }
  return dtype;
}

DType CheckRmsNorm(const Operation& operation, const RmsNormArgs& args) {
  const DType dtype = RequireFloat(operation, "x", args.x);
  const int rank = args.x.shape.rank();
  LS_CHECK(rank >= 1 && args.x.dim(rank - 1) > 0, "{}: x: expected rows of at least one channel, found {}",
           operation.name, args.x.shape.ToString());
  LS_CHECK(args.eps >= 0, "{}: eps: expected no negative value, found {}", operation.name, args.eps);
  RequireTensor(operation, "weight", args.weight, dtype, {args.x.dim(rank - 1)});
  return dtype;
}

DType CheckRmsNormGradient(const Operation& operation, const RmsNormArgs& args, const RmsNormGradient& gradient) {
  const DType dtype = CheckRmsNorm(operation, args);
  RequireTensor(operation, "d_y", gradient.d_y, dtype, args.x.shape);
  RequireTensor(operation, "d_x", gradient.d_x, dtype, args.x.shape);
  if (gradient.d_weight) {
    RequireTensor(operation, "d_weight", gradient.d_weight, SumType(operation, dtype), args.weight.shape);
  }
  return dtype;
}

DType CheckRope(const Operation& operation, const RopeArgs& args) {
  const DType dtype = RequireFloat(operation, "x", args.x);
  const DType result = OwnType(operation, "y", args.y, dtype);
  RequireRank(operation, "x", args.x, 3);
  const int64_t width = args.x.dim(2);
  LS_CHECK(width % 2 == 0, "{}: x: expected an even width, found {}", operation.name, args.x.shape.ToString());
  LS_CHECK(args.x.data != args.y.data || dtype == result,
           "{}: x and y are one tensor: expected one type, found {} and {}", operation.name, DTypeName(dtype),
           DTypeName(result));
  RequireTensor(operation, "y", args.y, result, args.x.shape);
  RequireTensor(operation, "positions", args.positions, DType::kI32, {args.x.dim(0)});
  RequireTensor(operation, "frequency", args.frequency, DType::kF64, {width / 2});
  return dtype;
}

DType CheckSwiGlu(const Operation& operation, const SwiGluArgs& args) {
  const DType dtype = RequireFloat(operation, "gate", args.gate);
  RequireRank(operation, "gate", args.gate, 2);
  RequireTensor(operation, "up", args.up, dtype, args.gate.shape);
  return dtype;
}

DType CheckSwiGluGradient(const Operation& operation, const SwiGluArgs& args, const SwiGluGradient& gradient) {
  const DType dtype = CheckSwiGlu(operation, args);
  RequireTensor(operation, "d_y", gradient.d_y, dtype, args.gate.shape);
  RequireTensor(operation, "d_gate", gradient.d_gate, dtype, args.gate.shape);
  RequireTensor(operation, "d_up", gradient.d_up, dtype, args.gate.shape);
  return dtype;
}

DType CheckEmbedding(const Operation& operation, const EmbeddingArgs& args) {
  const DType dtype = RequireFloat(operation, "weight", args.weight);
  RequireRank(operation, "weight", args.weight, 2);
  const int64_t tokens = args.tokens.size();
  RequireTensor(operation, "tokens", args.tokens, DType::kI32, {tokens});
  RequireTensor(operation, "y", args.y, dtype, {tokens, args.weight.dim(1)});
  return dtype;
}

DType CheckEmbeddingGradient(const Operation& operation, const EmbeddingArgs& args, const EmbeddingGradient& gradient) {
  const DType sums = RequireFloat(operation, "d_weight", gradient.d_weight);
  const DType dtype = OwnType(operation, "d_y", gradient.d_y, sums);
  RequireRank(operation, "d_weight", gradient.d_weight, 2);
  const int64_t tokens = args.tokens.size();
  RequireTensor(operation, "tokens", args.tokens, DType::kI32, {tokens});
  RequireTensor(operation, "d_weight", gradient.d_weight, SumType(operation, sums), gradient.d_weight.shape);
  RequireTensor(operation, "d_y", gradient.d_y, dtype, {tokens, gradient.d_weight.dim(1)});
  return dtype;
}

DType CheckGate(const Operation& operation, const GateArgs& args) {
  const DType dtype = RequireFloat(operation, "x", args.x);
  RequireRank(operation, "x", args.x, 2);
  RequireTensor(operation, "bias", args.bias, dtype, {args.x.dim(1)});
  RequireTensor(operation, "y", args.y, dtype, args.x.shape);
  return dtype;
}

DType CheckGateGradient(const Operation& operation, const GateArgs& args, const GateGradient& gradient) {
  const DType dtype = RequireFloat(operation, "y", args.y);
  const DType slope = OwnType(operation, "d_y", gradient.d_y, dtype);
  RequireRank(operation, "y", args.y, 2);
  RequireTensor(operation, "d_y", gradient.d_y, slope, args.y.shape);
  RequireTensor(operation, "d_x", gradient.d_x, dtype, args.y.shape);
  if (gradient.d_bias) {
    RequireTensor(operation, "d_bias", gradient.d_bias, SumType(operation, dtype), {args.y.dim(1)});
  }
  return dtype;
}

DType CheckAdd(const Operation& operation, const Tensor& x, const Tensor& y) {
  const DType dtype = RequireFloat(operation, "y", y);
  RequireTensor(operation, "x", x, dtype, y.shape);
  return dtype;
}

Cost MatMulCost(const MatMulArgs& args) {
  const auto [m, n, k] = SizesOf(args);
  const double read = args.accumulate || args.add ? 2 : 1;
  return {2.0 * m * n * k, static_cast<double>(args.a.bytes() + args.b.bytes()) + read * args.c.bytes()};
}

Cost RmsNormCost(const RmsNormArgs& args) { return {4.0 * args.x.size(), 2.0 * args.x.bytes()}; }

Cost RmsNormBackwardCost(const RmsNormArgs& args, const RmsNormGradient& gradient) {
  return {11.0 * args.x.size(), (gradient.accumulate_d_x ? 4.0 : 3.0) * args.x.bytes()};
}

Cost RopeCost(const RopeArgs& args) {
  return {3.0 * args.x.size(), static_cast<double>(args.x.bytes() + args.y.bytes())};
}

Cost SwiGluCost(const SwiGluArgs& args) { return {5.0 * args.y.size(), 3.0 * args.y.bytes()}; }

Cost SwiGluBackwardCost(const SwiGluArgs& args) { return {10.0 * args.gate.size(), 5.0 * args.gate.bytes()}; }

Cost EmbeddingCost(const EmbeddingArgs& args) { return {0, 2.0 * args.y.bytes()}; }

Cost EmbeddingBackwardCost(const EmbeddingGradient& gradient) {
  const Tensor& d_y = gradient.d_y;
  return {1.0 * d_y.size(), static_cast<double>(d_y.bytes() + 2 * d_y.size() * DTypeSize(gradient.d_weight.dtype))};
}

Cost GateCost(const GateArgs& args) { return {4.0 * args.x.size(), 2.0 * args.x.bytes()}; }

Cost GateBackwardCost(const GateArgs& args, const GateGradient& gradient) {
  return {4.0 * args.y.size(), 2.0 * args.y.bytes() + gradient.d_y.bytes()};
}

Cost AddCost(const Tensor& y) { return {1.0 * y.size(), 3.0 * y.bytes()}; }

}  // namespace longspan
