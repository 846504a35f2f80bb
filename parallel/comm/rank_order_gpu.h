// Sums in the order of ranks, on a GPU: bit for bit those of rank_order.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "parallel/comm/rank_order.h"

namespace longspan {

// What the ranks contributed, side by side in device memory: rank r's part from element r * stride on, but that of
// `own_rank` at `own`.
struct RankParts {
  const void* parts;
  int64_t stride;
  const void* own;
  int own_rank;
  int ranks;
};

// result[i] = part 0 [i] op part 1 [i] op ..., from left to right; BF16 in F32, rounded once. `result` may be `own`.
void ReduceInOrderGpu(cudaStream_t stream, DType dtype, ReduceOp op, const RankParts& parts, void* result,
                      int64_t count);

}  // namespace longspan
