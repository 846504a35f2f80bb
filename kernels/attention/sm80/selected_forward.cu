// Forward of the selected branch in bf16. Overwrites o and lse.
//
// A warp's strips are chosen blocks' (key_stage.cuh), its own copies under way and its own running softmax; the four
// are merged in the order of the warps. Bound by bringing the chosen blocks to shared memory.
#include "kernels/attention/sm80/kernels.cuh"
#include "kernels/attention/sm80/key_stage.cuh"

namespace longspan {
namespace {

// Strips of a warp in shared memory, this one and those under way.
template <int KW, int VW>
constexpr int kStages = KW + VW <= 256 ? 3 : 2;

template <int KW, int VW>
constexpr int kSharedBytes = kChosenWarps* kStages<KW, VW>* KeyStage<kChosenKeys, KW, VW>::kBytes;

// o of one warp, in the strips' place once they are used.
template <int VW>
constexpr int kPartialWidth = VW + 8;

template <int KW, int VW>
__global__ void __launch_bounds__(kChosenThreads, 2)
    SelectedForwardKernel(const __grid_constant__ BranchParams<SelectedSight> params) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float warp_max[kChosenWarps][kChosenRows], warp_sum[kChosenWarps][kChosenRows];
  using Stage = KeyStage<kChosenKeys, KW, VW>;
  constexpr int kDepth = kStages<KW, VW>;
  static_assert(kChosenWarps * kChosenRows * kPartialWidth<VW> * sizeof(float) <= kSharedBytes<KW, VW>);

  const ChosenPart part(params);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t strips = SharedAddress(shared) + warp * kDepth * Stage::kBytes;
  WarpAttention<KW, VW> attention;
  attention.Start(params.q, part.row, params.key_width);

  const auto copy = [&](int strip, int stage) {
    return part.template Copy<KW, VW>(params, strip, strips + stage * Stage::kBytes);
  };
  const float scale_log2 = params.scale * CUDART_L2E_F;
  int under_way[kDepth - 1];  // visible keys of the strips that were asked for, next first
#pragma unroll
  for (int i = 0; i < kDepth - 1; ++i) under_way[i] = copy(warp + i * kChosenWarps, i);
  int stage = 0;
  for (int strip = warp; strip < part.strips; strip += kChosenWarps) {
    WaitForCopies<kDepth - 2>();
    __syncwarp();  // this strip is here for all lanes, and none reads the one before it any more
    const int keys = under_way[0];
#pragma unroll
    for (int i = 0; i + 2 < kDepth; ++i) under_way[i] = under_way[i + 1];
    const int free_stage = stage == 0 ? kDepth - 1 : stage - 1;
    under_way[kDepth - 2] = copy(strip + (kDepth - 1) * kChosenWarps, free_stage);
    if (keys > 0) {
      const int begin[2] = {0, 0}, end[2] = {keys, keys};
      const uint32_t at = strips + stage * Stage::kBytes;
      attention.template Take<kChosenKeys>(at, at + Stage::kValuesAt, scale_log2, keys < kChosenKeys, begin, end);
    }
    stage = stage + 1 == kDepth ? 0 : stage + 1;
  }
  attention.Finish();

  WaitForCopies<0>();
  __syncthreads();
  float* const partial = reinterpret_cast<float*>(shared);  // [kChosenWarps, kChosenRows, kPartialWidth]
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4 + i * 8;
    if (lane % 4 == 0) {
      warp_max[warp][row] = attention.max[i];
      warp_sum[warp][row] = attention.sum[i];
    }
#pragma unroll
    for (int j = 0; j < VW / 8; ++j) {
      *reinterpret_cast<float2*>(partial + (warp * kChosenRows + row) * kPartialWidth<VW> + j * 8 + lane % 4 * 2) =
          make_float2(attention.o[j][2 * i], attention.o[j][2 * i + 1]);
    }
  }
  __syncthreads();

  const int pairs = params.value_width / 2;
  for (int row = warp; row < part.heads; row += kChosenWarps) {
    float largest = -CUDART_INF_F, weight[kChosenWarps], sum = 0;
    for (int i = 0; i < kChosenWarps; ++i) largest = fmaxf(largest, warp_max[i][row]);
#pragma unroll
    for (int i = 0; i < kChosenWarps; ++i) {
      weight[i] = largest == -CUDART_INF_F ? 0 : Exp2(warp_max[i][row] - largest);
      sum += weight[i] * warp_sum[i][row];
    }
    const float factor = sum == 0 ? 0 : 1 / sum;
    Bf16* const out = static_cast<Bf16*>(params.o) + (part.first_row + row) * params.value_width;
    for (int pair = lane; pair < pairs; pair += 32) {
      float2 value = make_float2(0, 0);
#pragma unroll
      for (int i = 0; i < kChosenWarps; ++i) {
        const float2 share =
            *reinterpret_cast<const float2*>(partial + (i * kChosenRows + row) * kPartialWidth<VW> + pair * 2);
        value.x += weight[i] * share.x;
        value.y += weight[i] * share.y;
      }
      *reinterpret_cast<uint32_t*>(out + pair * 2) = PackBf16(value.x * factor, value.y * factor);
    }
    if (lane == 0) params.lse[part.first_row + row] = LogSumExp(largest, sum);
  }
}

}  // namespace

void SelectedForwardSm80(cudaStream_t stream, const char* operation, const BranchParams<SelectedSight>& params) {
  DispatchWidths(params.key_width, params.value_width, [&]<int KW, int VW>() {
    LaunchChosen(stream, operation, SelectedForwardKernel<KW, VW>, kSharedBytes<KW, VW>, params);
  });
}

}  // namespace longspan
