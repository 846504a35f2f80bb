#include "parallel/comm/rank_order.h"

#include <algorithm>
#include <type_traits>

#include "runtime/bf16.h"
#include "runtime/error.h"

namespace longspan {
namespace {

// In blocks that stay in cache, each finished before it is written: `result` may then be one of the parts.
template <ReduceOp op, typename T>
void Reduce(const std::vector<const void*>& parts, void* result, int64_t count) {
  constexpr int64_t kBlock = 1024;
  using Wide = std::conditional_t<std::is_same_v<T, HostBf16>, float, T>;
  T* out = static_cast<T*>(result);
#pragma omp parallel for schedule(static) if (count > kBlock)
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    Wide sum[kBlock];
    std::copy_n(static_cast<const T*>(parts[0]) + begin, n, sum);
    for (size_t part = 1; part < parts.size(); ++part) {
      const T* x = static_cast<const T*>(parts[part]) + begin;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) sum[i] = Reduced<op, Wide>(sum[i], x[i]);
    }
    std::copy_n(sum, n, out + begin);
  }
}

template <typename T>
void ReduceTyped(ReduceOp op, const std::vector<const void*>& parts, void* result, int64_t count) {
  switch (op) {
    case ReduceOp::kSum:
      return Reduce<ReduceOp::kSum, T>(parts, result, count);
    case ReduceOp::kMax:
      return Reduce<ReduceOp::kMax, T>(parts, result, count);
  }
}

}  // namespace

bool CanReduce(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBf16 || dtype == DType::kI32 ||
         dtype == DType::kI64;
}

void ReduceInOrder(DType dtype, ReduceOp op, const std::vector<const void*>& parts, void* result, int64_t count) {
  switch (dtype) {
    case DType::kF32:
      return ReduceTyped<float>(op, parts, result, count);
    case DType::kF64:
      return ReduceTyped<double>(op, parts, result, count);
    case DType::kBf16:
      return ReduceTyped<HostBf16>(op, parts, result, count);
    case DType::kI32:
      return ReduceTyped<int32_t>(op, parts, result, count);
    case DType::kI64:
      return ReduceTyped<int64_t>(op, parts, result, count);
    default:
      Fail(ExitCode::kRankFailed, "reduction of {}: expected F32, F64, BF16, I32 or I64", DTypeName(dtype));
  }
}

}  // namespace longspan
