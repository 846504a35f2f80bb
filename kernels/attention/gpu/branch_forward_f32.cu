// Forward of any branch in fp32, plain: a warp takes one query of one head and walks over the keys it sees, 32 at a
// time, a lane to a key for the scores and to every 32nd channel for the values. For checking, not for speed.
// Overwrites o and lse.
#include <math_constants.h>

#include "kernels/attention/gpu/plain.cuh"

namespace longspan {
namespace {

constexpr int kWarps = 4;
constexpr int kChannels = kMaxWidthGpu / 32;

template <typename Sight>
__global__ void BranchForwardKernel(const __grid_constant__ BranchParams<Sight> params) {
  const int head = blockIdx.y * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (head >= params.heads) return;
  const int group = head / params.group_heads();
  const QueryTileGpu query = FindQueries(params.queries, blockIdx.x);
  const int64_t row = static_cast<int64_t>(query.row) * params.heads + head;
  const float* const q = static_cast<const float*>(params.q) + row * params.key_width;

  float o[kChannels] = {}, largest = -CUDART_INF_F, sum = 0;
  for (int i = 0; i < params.sight.spans(); ++i) {
    const SpanGpu span = params.sight.Span(query, params.groups, group, i);
    for (int first = span.begin; first < span.end; first += 32) {
      const int keys = min(32, span.end - first);
      int64_t place = 0;
      float score = -CUDART_INF_F;
      if (lane < keys) {
        const int key = first + lane;
        place = PageRow(params.table, params.page_rows, key) * params.groups + group;
        const float* const k = static_cast<const float*>(params.k) + place * params.key_width;
        float product = 0;
        for (int c = 0; c < params.key_width; ++c) product += q[c] * k[c];
        score = product * params.scale;
      }
      const float new_largest = fmaxf(largest, WarpMax(score));
      const float shrink = expf(largest - new_largest), p = expf(score - new_largest);
      largest = new_largest;
      sum = sum * shrink + WarpSum(p);
      for (int c = 0; c < kChannels; ++c) o[c] *= shrink;
      for (int key = 0; key < keys; ++key) {
        const float weight = __shfl_sync(~0u, p, key);
        const float* const v = static_cast<const float*>(params.v) + __shfl_sync(~0u, place, key) * params.value_width;
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          if (c * 32 + lane < params.value_width) o[c] += weight * v[c * 32 + lane];
        }
      }
    }
  }
  float* const out = static_cast<float*>(params.o) + row * params.value_width;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (c * 32 + lane < params.value_width) out[c * 32 + lane] = sum == 0 ? 0 : o[c] / sum;
  }
  if (lane == 0) params.lse[row] = largest + logf(sum);
}

}  // namespace

template <typename Sight>
void BranchForwardF32(cudaStream_t stream, const BranchParams<Sight>& params) {
  const dim3 grid(params.queries.tiles(), (params.heads + kWarps - 1) / kWarps);
  BranchForwardKernel<<<grid, kWarps * 32, 0, stream>>>(params);
}
template void BranchForwardF32(cudaStream_t stream, const BranchParams<RangeSight>& params);
template void BranchForwardF32(cudaStream_t stream, const BranchParams<SelectedSight>& params);

}  // namespace longspan
