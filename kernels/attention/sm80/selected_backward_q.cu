// d_q of the selected branch in bf16. Adds to d_q.
//
// Cut as the forward (selected_forward): a block takes one query and up to 16 heads of a group; its four warps take
// the chosen blocks' strips of 16 keys in turn, and their sums are added in the order of the warps. Bound by bringing
// the chosen blocks to shared memory.
#include "kernels/attention/sm80/backward_warp.cuh"

namespace longspan {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 16;
constexpr int kKeys = 16;
constexpr int kStages = 2;  // strips of a warp in shared memory: this one and the next

template <int KW, int VW>
struct Strip {
  Bf16 k[kKeys * PaddedWidth(KW)];
  Bf16 v[kKeys * PaddedWidth(VW)];
};

template <int KW, int VW>
constexpr int kSharedBytes = kWarps* kStages * sizeof(Strip<KW, VW>);

template <int KW, int VW>
__global__ void __launch_bounds__(kThreads, KW + VW <= 256 ? 3 : 2)
    SelectedBackwardQKernel(const __grid_constant__ BackwardParams params) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr uint32_t kStripBytes = sizeof(Strip<KW, VW>), kValuesAt = sizeof(Strip<KW, VW>::k);
  constexpr int kPartialWidth = KW + 8;
  static_assert(kWarps * kRows * kPartialWidth * sizeof(float) <= kSharedBytes<KW, VW>);

  const int group = blockIdx.y, group_heads = params.group_heads(), first_head = blockIdx.z * kRows;
  const int heads = min(kRows, group_heads - first_head);
  const QueryTileGpu query = FindQueries(params.queries, blockIdx.x);
  const int64_t first_row = static_cast<int64_t>(query.row) * params.heads + group * group_heads + first_head;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t strips = SharedAddress(shared) + warp * kStages * kStripBytes;

  // Rows past the heads repeat the last one and are not written.
  const int64_t row_of[2] = {first_row + min(lane / 4, heads - 1), first_row + min(lane / 4 + 8, heads - 1)};
  WarpBackwardQ<KW, VW> backward;
  backward.Start(params, row_of);

  const int block_keys = params.sight.select_block, block_strips = (block_keys + kKeys - 1) / kKeys;
  const int choices = params.sight.choices;
  const int32_t* const chosen =
      params.sight.selected + (static_cast<int64_t>(query.row) * params.groups + group) * choices;
  const int strip_count = CountChosen(chosen, choices) * block_strips;

  // Issues the copies of a strip into its stage; returns how many of its keys the query sees.
  const auto copy = [&](int strip, int stage) {
    int keys = 0;
    if (strip < strip_count) {
      const int block = chosen[strip / block_strips], in_block = strip % block_strips * kKeys;
      const int first_key = block * block_keys + in_block;
      keys = min(kKeys, min(block_keys - in_block, query.position + 1 - first_key));
      if (keys > 0) {
        const uint32_t to = strips + stage * kStripBytes;
        const RowFinder finder(params.table, params.page_rows, first_key, keys);
        CopyTile<kKeys, KW>(to, static_cast<const Bf16*>(params.k), finder, 0, keys, params.groups, group,
                            params.key_width, lane, 32);
        CopyTile<kKeys, VW>(to + kValuesAt, static_cast<const Bf16*>(params.v), finder, 0, keys, params.groups, group,
                            params.value_width, lane, 32);
      }
    }
    CommitCopies();
    return keys;
  };

  const float scale_log2 = params.scale * CUDART_L2E_F;
  int keys = copy(warp, 0), stage = 0;
  for (int strip = warp; strip < strip_count; strip += kWarps) {
    WaitForCopies<0>();
    __syncwarp();  // this strip is here for all lanes, and none reads the one before it any more
    const int next_keys = copy(strip + kWarps, 1 - stage);
    if (keys > 0) {
      const int begin[2] = {0, 0}, end[2] = {keys, keys};
      const uint32_t at = strips + stage * kStripBytes;
      backward.template Take<kKeys>(at, at + kValuesAt, scale_log2, begin, end);
    }
    keys = next_keys;
    stage = 1 - stage;
  }

  WaitForCopies<0>();
  __syncthreads();
  float* const partial = reinterpret_cast<float*>(shared);  // [kWarps, kRows, kPartialWidth], in the strips' place
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < KW / 8; ++j) {
      *reinterpret_cast<float2*>(partial + (warp * kRows + lane / 4 + i * 8) * kPartialWidth + j * 8 + lane % 4 * 2) =
          make_float2(backward.d_q[j][2 * i], backward.d_q[j][2 * i + 1]);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < heads * params.key_width; i += kThreads) {
    const int row = i / params.key_width, channel = i % params.key_width;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += partial[(w * kRows + row) * kPartialWidth + channel];
    params.d_q[first_row * params.key_width + i] += params.scale * sum;
  }
}

}  // namespace

void SelectedBackwardQBf16(cudaStream_t stream, const char* operation, BackwardParams params) {
  params.queries = Recut(params.queries, 1);
  if (params.queries.tiles() == 0) return;
  DispatchBackwardWidths(params, [&]<int KW, int VW>() {
    constexpr int kBytes = kSharedBytes<KW, VW>;
    CudaCheck(
        cudaFuncSetAttribute(SelectedBackwardQKernel<KW, VW>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        operation);
    const dim3 grid(params.queries.tiles(), params.groups, (params.group_heads() + kRows - 1) / kRows);
    SelectedBackwardQKernel<KW, VW><<<grid, kThreads, kBytes, stream>>>(params);
  });
}

}  // namespace longspan
