// Forward of the window and the compressed branch in bf16: each query sees one range of key rows. Overwrites o and lse.
//
// A block takes 128 rows: as many consecutive queries of a segment as fit with all heads of one group, so that a tile
// of 64 keys is brought to shared memory once for them all, the next one under way while this one is used. A warp
// takes 16 rows. Bound by shared memory's reads for the tensor cores.
#include "kernels/attention/sm80/branch_warp.cuh"

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
__global__ void __launch_bounds__(kThreads, 1) RangeForwardKernel(const __grid_constant__ BranchParams params) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr uint32_t kStageBytes = sizeof(Stage<KW, VW>), kValuesAt = sizeof(Stage<KW, VW>::k);
  const uint32_t stages = SharedAddress(shared);

  const int group = blockIdx.y, group_heads = params.group_heads();
  // The last queries see most of the compressed tokens: they begin first.
  const QueryTileGpu tile = FindQueries(params.queries, gridDim.x - 1 - blockIdx.x);
  const int rows = tile.count * group_heads;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const bool active = warp * 16 < rows;
  int64_t out_row[2];  // of [T,H]
  SpanGpu seen[2];
  const Bf16* q_row[2];
  for (int i = 0; i < 2; ++i) {
    // Rows past the end repeat the last one and are not written.
    const int r = min(warp * 16 + lane / 4 + i * 8, rows - 1);
    const int query = r / group_heads;
    out_row[i] = static_cast<int64_t>(tile.row + query) * params.heads + group * group_heads + r % group_heads;
    seen[i] = SeenSpan(params.sight, tile.position + query);
    q_row[i] = static_cast<const Bf16*>(params.q) + out_row[i] * params.key_width;
  }
  WarpAttention<KW, VW> attention;
  attention.Start(q_row, params.key_width);

  // What the warp's rows all see, and what any of them sees, from the first and the last of them.
  const int warp_first = min(warp * 16, rows - 1) / group_heads,
            warp_last = min(warp * 16 + 15, rows - 1) / group_heads;
  const SpanGpu first_seen = SeenSpan(params.sight, tile.position + warp_first);
  const SpanGpu last_seen = SeenSpan(params.sight, tile.position + warp_last);

  const int begin = SeenSpan(params.sight, tile.position).begin;
  const int end = SeenSpan(params.sight, tile.position + tile.count - 1).end;
  const int first_tile = begin / kKeys, last_tile = begin < end ? (end + kKeys - 1) / kKeys : first_tile;

  const auto copy = [&](int key_tile) {
    const int first_key = key_tile * kKeys;
    const uint32_t stage = stages + key_tile % 2 * kStageBytes;
    const RowFinder finder(params.table, params.page_rows, first_key, kKeys);
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
    if (!active || first_key >= last_seen.end || first_key + kKeys <= first_seen.begin) continue;
    const bool masked = first_key < last_seen.begin || first_key + kKeys > first_seen.end;
    const int row_begin[2] = {seen[0].begin - first_key, seen[1].begin - first_key};
    const int row_end[2] = {seen[0].end - first_key, seen[1].end - first_key};
    const uint32_t stage = stages + key_tile % 2 * kStageBytes;
    attention.template Take<kKeys>(stage, stage + kValuesAt, scale_log2, masked, row_begin, row_end);
  }
  attention.Finish();

  for (int i = 0; i < 2; ++i) {
    if (warp * 16 + lane / 4 + i * 8 >= rows) continue;
    const float sum = attention.sum[i], factor = sum == 0 ? 0 : 1 / sum;
    Bf16* const out = static_cast<Bf16*>(params.o) + out_row[i] * params.value_width;
#pragma unroll
    for (int j = 0; j < VW / 8; ++j) {
      const int channel = j * 8 + lane % 4 * 2;
      if (channel >= params.value_width) continue;
      *reinterpret_cast<uint32_t*>(out + channel) =
          PackBf16(attention.o[j][2 * i] * factor, attention.o[j][2 * i + 1] * factor);
    }
    if (lane % 4 == 0) params.lse[out_row[i]] = LogSumExp(attention.max[i], sum);
  }
}

}  // namespace

void RangeForwardBf16(cudaStream_t stream, const char* operation, const BranchArgs& args, const SightGpu& sight) {
  const int64_t group_heads = args.q.dim(1) / args.kv.k.dim(1);
  const BranchParams params = BranchParamsOf(operation, args, sight, static_cast<int>(kRows / group_heads));
  if (params.queries.tiles() == 0) return;
  DispatchWidths(params.key_width, params.value_width, [&]<int KW, int VW>() {
    constexpr int kBytes = 2 * sizeof(Stage<KW, VW>);
    CudaCheck(cudaFuncSetAttribute(RangeForwardKernel<KW, VW>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
              operation);
    RangeForwardKernel<KW, VW><<<dim3(params.queries.tiles(), params.groups), kThreads, kBytes, stream>>>(params);
  });
}

}  // namespace longspan
