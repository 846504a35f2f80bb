// Backward of any branch in fp32, plain: for d_q a warp takes one query of one head and walks over the keys it sees,
// for d_k and d_v one key row of one group and walks over the queries and heads that see it; 32 at a time, a lane to
// each for the scores and to every 32nd channel for the sums. For checking, not for speed. Adds.
#include <math_constants.h>

#include "kernels/attention/gpu/backward.cuh"

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
__device__ Gradients Meet(const BackwardParams& params, int64_t row, int64_t place) {
  const int key_width = params.key_width, value_width = params.value_width;
  const float score = Dot(static_cast<const float*>(params.q) + row * key_width,
                          static_cast<const float*>(params.k) + place * key_width, key_width);
  const float d_p = Dot(static_cast<const float*>(params.d_o) + row * value_width,
                        static_cast<const float*>(params.v) + place * value_width, value_width);
  const float p = expf(score * params.scale - params.lse[row]);
  return {p, p * (d_p - params.delta[row])};
}

__global__ void BackwardQKernel(const __grid_constant__ BackwardParams params) {
  const int head = blockIdx.y * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (head >= params.heads) return;
  const int group = head / params.group_heads();
  const QueryTileGpu query = FindQueries(params.queries, blockIdx.x);
  const int64_t row = static_cast<int64_t>(query.row) * params.heads + head;
  float d_q[kChannels] = {};
  const int spans = max(1, params.sight.choices);
  for (int i = 0; i < spans; ++i) {
    const SpanGpu span = SpanAt(params, query, group, i);
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

__global__ void BackwardKeysKernel(const __grid_constant__ BackwardParams params,
                                   const __grid_constant__ SelectionLists lists) {
  const int key = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32, group = blockIdx.y;
  if (key >= params.key_rows) return;
  const bool listed = params.sight.selected != nullptr;
  const int group_heads = params.group_heads();
  SpanGpu watchers = {0, 0};
  const int32_t* list = nullptr;
  int count = 0;
  if (listed) {
    const int number = group * lists.blocks + key / params.sight.select_block;
    list = lists.rows + lists.begin[number];
    count = lists.begin[number + 1] - lists.begin[number];
  } else {
    watchers = Watchers(params, key, key + 1);
    count = CountQueries(params.queries, watchers);
  }
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
      const QueryGpu query = listed ? QueryGpu{PositionOf(params.queries, list[index]), list[index]}
                                    : QueryAt(params.queries, watchers, index);
      const SpanGpu seen = listed ? SpanGpu{0, query.position + 1} : SeenSpan(params.sight, query.position);
      row = static_cast<int64_t>(query.row) * params.heads + group * group_heads + i % group_heads;
      if (key >= seen.begin && key < seen.end) here = Meet(params, row, place);
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

void BackwardF32(cudaStream_t stream, const BackwardParams& params, const SelectionLists& lists) {
  if (params.d_q != nullptr) {
    BackwardParams single = params;
    single.queries = Recut(params.queries, 1);
    const dim3 grid(single.queries.tiles(), (params.heads + kWarps - 1) / kWarps);
    BackwardQKernel<<<grid, kWarps * 32, 0, stream>>>(single);
  }
  if (params.d_k != nullptr || params.d_v != nullptr) {
    const dim3 grid(static_cast<unsigned>(CeilDiv(params.key_rows, kWarps)), params.groups);
    BackwardKeysKernel<<<grid, kWarps * 32, 0, stream>>>(params, lists);
  }
}

}  // namespace longspan
