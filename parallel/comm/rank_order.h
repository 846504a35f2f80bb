// Sums in the order of ranks: what makes a reduction give the same bits in every run.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "parallel/comm/comm.h"
#include "runtime/tensor.h"

namespace longspan {

// a op b; a NaN stays a NaN under kMax, sums of integers wrap (those of hashes do). Runs on GPUs, too.
template <ReduceOp op, typename T>
constexpr T Reduced(T a, T b) {
  if constexpr (op == ReduceOp::kSum && std::is_integral_v<T>) {
    return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) + static_cast<std::make_unsigned_t<T>>(b));
  }
  if constexpr (op == ReduceOp::kSum) return a + b;
  if constexpr (op == ReduceOp::kMax) return b > a || b != b ? b : a;
}

// result[i] = parts[0][i] op parts[1][i] op ..., from left to right, in the tensors' own dtype (BF16: in F32,
// rounded once). `result` may be one of the parts. Throws Error for dtypes other than F32, F64, BF16, I32, I64.
void ReduceInOrder(DType dtype, ReduceOp op, const std::vector<const void*>& parts, void* result, int64_t count);

bool CanReduce(DType dtype);

}  // namespace longspan
