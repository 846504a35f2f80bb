// Forward of the selected branch in bf16. Overwrites o and lse.
//
// A block takes one query and up to 16 heads of a group, padded to the 16 rows of a tensor-core tile: neighbouring
// queries choose different blocks. Its four warps take the chosen blocks' strips of 16 keys in turn, each with its own
// copies under way and its own running softmax; the four are merged in the order of the warps. Bound by bringing the
// chosen blocks to shared memory.
#include "kernels/attention/sm80/branch_warp.cuh"

namespace longspan {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 16;
constexpr int kKeys = 16;

template <int KW, int VW>
struct Strip {
  Bf16 k[kKeys * PaddedWidth(KW)];
  Bf16 v[kKeys * PaddedWidth(VW)];
};

// Strips of a warp in shared memory, this one and those under way.
template <int KW, int VW>
constexpr int kStages = KW + VW <= 256 ? 3 : 2;

template <int KW, int VW>
constexpr int kSharedBytes = kWarps* kStages<KW, VW> * sizeof(Strip<KW, VW>);

// o of one warp, in the strips' place once they are used.
template <int VW>
constexpr int kPartialWidth = VW + 8;

template <int KW, int VW>
__global__ void __launch_bounds__(kThreads, 2) SelectedForwardKernel(const __grid_constant__ BranchParams params) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float warp_max[kWarps][kRows], warp_sum[kWarps][kRows];
  constexpr int kDepth = kStages<KW, VW>;
  constexpr uint32_t kStripBytes = sizeof(Strip<KW, VW>), kValuesAt = sizeof(Strip<KW, VW>::k);
  static_assert(kWarps * kRows * kPartialWidth<VW> * sizeof(float) <= kSharedBytes<KW, VW>);

  const int group = blockIdx.y, group_heads = params.group_heads(), first_head = blockIdx.z * kRows;
  const int heads = min(kRows, group_heads - first_head);
  const QueryTileGpu query = FindQueries(params.queries, blockIdx.x);
  const int64_t first_row = static_cast<int64_t>(query.row) * params.heads + group * group_heads + first_head;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t strips = SharedAddress(shared) + warp * kDepth * kStripBytes;

  const Bf16* q_row[2];
  for (int i = 0; i < 2; ++i) {
    // Rows past the heads repeat the last one and are not written.
    const int64_t row = first_row + min(lane / 4 + i * 8, heads - 1);
    q_row[i] = static_cast<const Bf16*>(params.q) + row * params.key_width;
  }
  WarpAttention<KW, VW> attention;
  attention.Start(q_row, params.key_width);

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
  int under_way[kDepth - 1];  // visible keys of the strips that were asked for, next first
#pragma unroll
  for (int i = 0; i < kDepth - 1; ++i) under_way[i] = copy(warp + i * kWarps, i);
  int stage = 0;
  for (int strip = warp; strip < strip_count; strip += kWarps) {
    WaitForCopies<kDepth - 2>();
    __syncwarp();  // this strip is here for all lanes, and none reads the one before it any more
    const int keys = under_way[0];
#pragma unroll
    for (int i = 0; i + 2 < kDepth; ++i) under_way[i] = under_way[i + 1];
    const int free_stage = stage == 0 ? kDepth - 1 : stage - 1;
    under_way[kDepth - 2] = copy(strip + (kDepth - 1) * kWarps, free_stage);
    if (keys > 0) {
      const int begin[2] = {0, 0}, end[2] = {keys, keys};
      const uint32_t at = strips + stage * kStripBytes;
      attention.template Take<kKeys>(at, at + kValuesAt, scale_log2, keys < kKeys, begin, end);
    }
    stage = stage + 1 == kDepth ? 0 : stage + 1;
  }
  attention.Finish();

  WaitForCopies<0>();
  __syncthreads();
  float* const partial = reinterpret_cast<float*>(shared);  // [kWarps, kRows, kPartialWidth]
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4 + i * 8;
    if (lane % 4 == 0) {
      warp_max[warp][row] = attention.max[i];
      warp_sum[warp][row] = attention.sum[i];
    }
#pragma unroll
    for (int j = 0; j < VW / 8; ++j) {
      *reinterpret_cast<float2*>(partial + (warp * kRows + row) * kPartialWidth<VW> + j * 8 + lane % 4 * 2) =
          make_float2(attention.o[j][2 * i], attention.o[j][2 * i + 1]);
    }
  }
  __syncthreads();

  const int pairs = params.value_width / 2;
  for (int row = warp; row < heads; row += kWarps) {
    float largest = -CUDART_INF_F, weight[kWarps], sum = 0;
    for (int i = 0; i < kWarps; ++i) largest = fmaxf(largest, warp_max[i][row]);
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      weight[i] = largest == -CUDART_INF_F ? 0 : Exp2(warp_max[i][row] - largest);
      sum += weight[i] * warp_sum[i][row];
    }
    const float factor = sum == 0 ? 0 : 1 / sum;
    Bf16* const out = static_cast<Bf16*>(params.o) + (first_row + row) * params.value_width;
    for (int pair = lane; pair < pairs; pair += 32) {
      float2 value = make_float2(0, 0);
#pragma unroll
      for (int i = 0; i < kWarps; ++i) {
        const float2 part =
            *reinterpret_cast<const float2*>(partial + (i * kRows + row) * kPartialWidth<VW> + pair * 2);
        value.x += weight[i] * part.x;
        value.y += weight[i] * part.y;
      }
      *reinterpret_cast<uint32_t*>(out + pair * 2) = PackBf16(value.x * factor, value.y * factor);
    }
    if (lane == 0) params.lse[first_row + row] = LogSumExp(largest, sum);
  }
}

}  // namespace

void SelectedForwardBf16(cudaStream_t stream, const char* operation, const BranchArgs& args, const SightGpu& sight) {
  const BranchParams params = BranchParamsOf(operation, args, sight, 1);
  if (params.queries.tiles() == 0) return;
  DispatchWidths(params.key_width, params.value_width, [&]<int KW, int VW>() {
    constexpr int kBytes = kSharedBytes<KW, VW>;
    CudaCheck(cudaFuncSetAttribute(SelectedForwardKernel<KW, VW>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
              operation);
    const dim3 grid(params.queries.tiles(), params.groups, (params.group_heads() + kRows - 1) / kRows);
    SelectedForwardKernel<KW, VW><<<grid, kThreads, kBytes, stream>>>(params);
  });
}

}  // namespace longspan
