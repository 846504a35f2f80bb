// What the two passes of the range backward on Hopper share: d_q by query tiles, d_k and d_v by key tiles.
#pragma once

#include "kernels/attention/gpu/backward.cuh"
#include "kernels/attention/sm90/range_work.cuh"

namespace longspan {

using BackwardRange = BackwardParams<RangeSight>;

// Of a row of [T,H]. One that counts for nothing has weights of 2^-inf.
struct RowStatistics {
  float lse_log2 = INFINITY, delta = 0;

  RowStatistics() = default;
  __device__ RowStatistics(float lse, float delta)
      : lse_log2(lse == -INFINITY ? INFINITY : lse * CUDART_L2E_F), delta(delta) {}
};

template <typename Sight>
__device__ inline RowStatistics StatisticsOf(const BackwardParams<Sight>& params, int64_t row) {
  return {params.lse[row], params.delta[row]};
}

// Whether key rows [first, first+count) all belong to one document: a compressed row that holds two is seen by nobody
// and may hold anything. The tokens of the last must be the sequence's.
__device__ inline bool InOneDocument(const RangeSight& sight, int first, int count) {
  if (sight.block == 1 || sight.doc_start == nullptr) return true;
  const int last_token = (first + count - 1 - sight.lead) * sight.stride + sight.block - 1;
  return __ldg(sight.doc_start + last_token) <= (first - sight.lead) * sight.stride;
}

// Whether any query of the call sees key row `row`: the first from its last token on does, or none.
__device__ inline bool RowSeen(const RangeParams& params, int row) {
  const RangeSight& sight = params.sight;
  if (row < sight.lead) return false;
  const int last_token = (row - sight.lead) * sight.stride + sight.block - 1;
  int position = INT_MAX;
  for (int i = 0; i < params.queries.count; ++i) {
    const int begin = params.queries.begin[i], here = max(begin, last_token);
    if (here < begin + params.queries.length[i]) position = min(position, here);
  }
  return position < INT_MAX && sight.Seen(position).begin <= row;
}

}  // namespace longspan
