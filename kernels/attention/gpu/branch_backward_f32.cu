// Backward of any branch in fp32, plain: for d_q a warp takes one query of one head and walks over the keys it sees,
// for d_k and d_v one key row of one group and walks over the queries and heads that see it; 32 at a time, a lane to
// each for the scores and to every 32nd channel for the sums. For checking, not for speed. Adds.
#include <math_constants.h>

#include "kernels/attention/gpu/plain.cuh"

namespace longspan {
namespace {

constexpr int kWarps = 4;
constexpr int kChannels = kMaxWidthGpu / 32;

__device__ float Dot(const float* a, const float* b, int width) {
  float sum = 0;
  for (int c = 0; c < width; ++c) sum += a[c] * b[c];
  return sum;
}

// sum[c] += weight * x[c * 32 + lane]
__device__ void AddTimes(float weight, const float* x, int width, float (&sum)[kChannels]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (c * 32 + lane < width) sum[c] += weight * x[c * 32 + lane];
  }
}

__device__ void AddTo(float* d_x, float factor, const float (&sum)[kChannels], int width) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (c * 32 + lane < width) d_x[c * 32 + lane] += factor * sum[c];
  }
}

struct Gradients {
  float p, d_s;
};

// Of query row `row` of [T,H] and key row `place` of [R,G], one sees the other.
template <typename Sight>
__device__ Gradients Meet(const BackwardParams<Sight>& params, int64_t row, int64_t place) {
  const int key_width = params.key_width, value_width = params.value_width;
  const float score = Dot(static_cast<const float*>(params.q) + row * key_width,
                          static_cast<const float*>(params.k) + place * key_width, key_width);
  const float d_p = Dot(static_cast<const float*>(params.d_o) + row * value_width,
                        static_cast<const float*>(params.v) + place * value_width, value_width);
  const float p = expf(score * params.scale - params.lse[row]);
  return {p, p * (d_p - params.delta[row])};
}

template <typename Sight>
__global__ void BackwardQKernel(const __grid_constant__ BackwardParams<Sight> params) {
  const int head = blockIdx.y * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (head >= params.heads) return;
  const int group = head / params.group_heads();
  const QueryTileGpu query = FindQueries(params.queries, blockIdx.x);
  const int64_t row = static_cast<int64_t>(query.row) * params.heads + head;
  float d_q[kChannels] = {};
  for (int i = 0; i < params.sight.spans(); ++i) {
    const SpanGpu span = params.sight.Span(query, params.groups, group, i);
    for (int first = span.begin; first < span.end; first += 32) {
      const int keys = min(32, span.end - first);
      int64_t place = 0;
      Gradients here = {0, 0};
      if (lane < keys) {
        place = PageRow(params.table, params.page_rows, first + lane) * params.groups + group;
        here = Meet(params, row, place);
      }
      for (int key = 0; key < keys; ++key) {
        const float weight = __shfl_sync(~0u, here.d_s, key);
        const float* const k = static_cast<const float*>(params.k) + __shfl_sync(~0u, place, key) * params.key_width;
        AddTimes(weight, k, params.key_width, d_q);
      }
    }
  }
  AddTo(params.d_q + row * params.key_width, params.scale, d_q, params.key_width);
}

template <typename Sight>
__global__ void BackwardKeysKernel(const __grid_constant__ BackwardParams<Sight> params,
                                   const __grid_constant__ SelectionLists lists) {
  const int key = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32, group = blockIdx.y;
  if (key >= params.key_rows) return;
  const auto watchers = WatchersOf(params, lists, group, SpanGpu{key, key + 1});
  const int group_heads = params.group_heads(), count = watchers.Count(params);
  if (count == 0) return;
  const int64_t buffer_row = PageRow(params.table, params.page_rows, key);
  if (buffer_row < 0) return;
  const int64_t place = buffer_row * params.groups + group, rows = static_cast<int64_t>(count) * group_heads;
  float d_k[kChannels] = {}, d_v[kChannels] = {};
  for (int64_t first = 0; first < rows; first += 32) {
    const int64_t i = first + lane;
    int64_t row = 0;
    Gradients here = {0, 0};
    if (i < rows) {
      const int index = static_cast<int>(i / group_heads);
      const Watcher watcher = watchers.At(params, index, watchers.Ask(params, index));
      row = static_cast<int64_t>(watcher.row) * params.heads + group * group_heads + i % group_heads;
      if (key >= watcher.seen.begin && key < watcher.seen.end) here = Meet(params, row, place);
    }
    const int here_rows = static_cast<int>(min(int64_t{32}, rows - first));
    for (int r = 0; r < here_rows; ++r) {
      const int64_t from = __shfl_sync(~0u, row, r);
      AddTimes(__shfl_sync(~0u, here.d_s, r), static_cast<const float*>(params.q) + from * params.key_width,
               params.key_width, d_k);
      AddTimes(__shfl_sync(~0u, here.p, r), static_cast<const float*>(params.d_o) + from * params.value_width,
               params.value_width, d_v);
    }
  }
  if (params.d_k != nullptr) AddTo(params.d_k + place * params.key_width, params.scale, d_k, params.key_width);
  if (params.d_v != nullptr) AddTo(params.d_v + place * params.value_width, 1, d_v, params.value_width);
}

}  // namespace

template <typename Sight>
void BranchBackwardF32(cudaStream_t stream, const BackwardParams<Sight>& params, const SelectionLists& lists) {
  if (params.d_q != nullptr) {
    const dim3 grid(params.queries.tiles(), (params.heads + kWarps - 1) / kWarps);
    BackwardQKernel<<<grid, kWarps * 32, 0, stream>>>(params);
  }
  if (params.keys_wanted()) {
    const dim3 grid(static_cast<unsigned>(CeilDiv(params.key_rows, kWarps)), params.groups);
    BackwardKeysKernel<<<grid, kWarps * 32, 0, stream>>>(params, lists);
  }
}
template void BranchBackwardF32(cudaStream_t stream, const BackwardParams<RangeSight>& params,
                                const SelectionLists& lists);
template void BranchBackwardF32(cudaStream_t stream, const BackwardParams<SelectedSight>& params,
                                const SelectionLists& lists);

}  // namespace longspan
