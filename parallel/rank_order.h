// Sums in the order of ranks: what makes a reduction give the same bits in every run.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/comm.h"
#include "runtime/tensor.h"

namespace longspan {

// result[i] = parts[0][i] op parts[1][i] op ..., from left to right, in the tensors' own dtype. `result` may be one of
// the parts. A NaN stays a NaN under kMax and kMin. Throws Error for dtypes other than F32, F64, I32, I64.
void ReduceInOrder(DType dtype, ReduceOp op, const std::vector<const void*>& parts, void* result, int64_t count);

bool CanReduce(DType dtype);

}  // namespace longspan
