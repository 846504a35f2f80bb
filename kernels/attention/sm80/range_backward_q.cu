// d_q of the window and the compressed branch in bf16: each query sees one range of key rows. Adds to d_q.
//
// Cut as the forward (range_forward): a block takes 128 rows, queries x heads of one group, and walks over tiles of
// 64 keys, the next one under way while this one is used; a warp takes 16 rows, whose q, d_o and d_q stay in registers.
#include "kernels/attention/sm80/backward_warp.cuh"

namespace longspan {
namespace {

constexpr int kRows = 128;
constexpr int kThreads = kRows * 2;
constexpr int kKeys = 64;

template <int KW, int VW>
struct Stage {
  Bf16 k[kKeys * PaddedWidth(KW)];
  Bf16 v[kKeys * PaddedWidth(VW)];
};

template <int KW, int VW>
__global__ void __launch_bounds__(kThreads, 1) RangeBackwardQKernel(const __grid_constant__ BackwardParams params) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr uint32_t kStageBytes = sizeof(Stage<KW, VW>), kValuesAt = sizeof(Stage<KW, VW>::k);
  const uint32_t stages = SharedAddress(shared);

  const int group = blockIdx.y, group_heads = params.group_heads();
  // The last queries see most of the compressed tokens: they begin first.
  const QueryTileGpu tile = FindQueries(params.queries, gridDim.x - 1 - blockIdx.x);
  const int rows = tile.count * group_heads;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const bool active = warp * 16 < rows;
  int64_t row_of[2];  // of [T,H]
  SpanGpu seen[2];
  for (int i = 0; i < 2; ++i) {
    // Rows past the end repeat the last one and are not written.
    const int r = min(warp * 16 + lane / 4 + i * 8, rows - 1);
    const int query = r / group_heads;
    row_of[i] = static_cast<int64_t>(tile.row + query) * params.heads + group * group_heads + r % group_heads;
    seen[i] = SeenSpan(params.sight, tile.position + query);
  }
  WarpBackwardQ<KW, VW> backward;
  backward.Start(params, row_of);

  // What any of the warp's rows sees, and what any of the block's.
  const int warp_begin = SeenSpan(params.sight, tile.position + min(warp * 16, rows - 1) / group_heads).begin;
  const int warp_end = SeenSpan(params.sight, tile.position + min(warp * 16 + 15, rows - 1) / group_heads).end;
  const int begin = SeenSpan(params.sight, tile.position).begin;
  const int end = SeenSpan(params.sight, tile.position + tile.count - 1).end;
  const int first_tile = begin / kKeys, last_tile = begin < end ? (end + kKeys - 1) / kKeys : first_tile;

  const auto copy = [&](int key_tile) {
    const int first_key = key_tile * kKeys;
    const uint32_t stage = stages + key_tile % 2 * kStageBytes;
    const SeenRowFinder finder(params, first_key, kKeys);
    CopyTile<kKeys, KW>(stage, static_cast<const Bf16*>(params.k), finder, begin - first_key, end - first_key,
                        params.groups, group, params.key_width, threadIdx.x, kThreads);
    CopyTile<kKeys, VW>(stage + kValuesAt, static_cast<const Bf16*>(params.v), finder, begin - first_key,
                        end - first_key, params.groups, group, params.value_width, threadIdx.x, kThreads);
    CommitCopies();
  };

  const float scale_log2 = params.scale * CUDART_L2E_F;
  if (first_tile < last_tile) copy(first_tile);
  for (int key_tile = first_tile; key_tile < last_tile; ++key_tile) {
    WaitForCopies<0>();
    __syncthreads();  // this tile is here, and nobody reads the one before it any more
    if (key_tile + 1 < last_tile) copy(key_tile + 1);
    const int first_key = key_tile * kKeys;
    if (!active || first_key >= warp_end || first_key + kKeys <= warp_begin) continue;
    const int row_begin[2] = {seen[0].begin - first_key, seen[1].begin - first_key};
    const int row_end[2] = {seen[0].end - first_key, seen[1].end - first_key};
    const uint32_t stage = stages + key_tile % 2 * kStageBytes;
    backward.template Take<kKeys>(stage, stage + kValuesAt, scale_log2, row_begin, row_end);
  }

  for (int i = 0; i < 2; ++i) {
    if (warp * 16 + lane / 4 + i * 8 >= rows) continue;
    float* const out = params.d_q + row_of[i] * params.key_width;
#pragma unroll
    for (int j = 0; j < KW / 8; ++j) {
      const int channel = j * 8 + lane % 4 * 2;
      if (channel >= params.key_width) continue;
      float2* const to = reinterpret_cast<float2*>(out + channel);
      const float2 old = *to;
      *to =
          make_float2(old.x + params.scale * backward.d_q[j][2 * i], old.y + params.scale * backward.d_q[j][2 * i + 1]);
    }
  }
}

}  // namespace

void RangeBackwardQBf16(cudaStream_t stream, const char* operation, BackwardParams params) {
  params.queries = Recut(params.queries, kRows / params.group_heads());
  if (params.queries.tiles() == 0) return;
  DispatchBackwardWidths(params, [&]<int KW, int VW>() {
    constexpr int kBytes = 2 * sizeof(Stage<KW, VW>);
    CudaCheck(cudaFuncSetAttribute(RangeBackwardQKernel<KW, VW>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
              operation);
    RangeBackwardQKernel<KW, VW><<<dim3(params.queries.tiles(), params.groups), kThreads, kBytes, stream>>>(params);
  });
}

}  // namespace longspan
