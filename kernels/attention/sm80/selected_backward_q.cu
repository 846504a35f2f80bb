// d_q of the selected branch in bf16. Adds to d_q.
//
// Cut as the forward (selected_forward); the four warps' sums are added in their order. Bound by bringing the chosen
// blocks to shared memory.
#include "kernels/attention/sm80/kernels.cuh"
#include "kernels/attention/sm80/key_stage.cuh"

namespace longspan {
namespace {

constexpr int kStages = 2;  // strips of a warp in shared memory: this one and the next

template <int KW, int VW>
constexpr int kSharedBytes = kChosenWarps* kStages* KeyStage<kChosenKeys, KW, VW>::kBytes;

template <int KW, int VW>
__global__ void __launch_bounds__(kChosenThreads, KW + VW <= 256 ? 3 : 2)
    SelectedBackwardQKernel(const __grid_constant__ BackwardParams<SelectedSight> params) {
  extern __shared__ __align__(128) unsigned char shared[];
  using Stage = KeyStage<kChosenKeys, KW, VW>;
  constexpr int kPartialWidth = KW + 8;
  static_assert(kChosenWarps * kChosenRows * kPartialWidth * sizeof(float) <= kSharedBytes<KW, VW>);

  const ChosenPart part(params);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t strips = SharedAddress(shared) + warp * kStages * Stage::kBytes;
  WarpBackwardQ<KW, VW> backward;
  backward.Start(params, part.row);

  const auto copy = [&](int strip, int stage) {
    return part.template Copy<KW, VW>(params, strip, strips + stage * Stage::kBytes);
  };
  const float scale_log2 = params.scale * CUDART_L2E_F;
  int keys = copy(warp, 0), stage = 0;
  for (int strip = warp; strip < part.strips; strip += kChosenWarps) {
    WaitForCopies<0>();
    __syncwarp();  // this strip is here for all lanes, and none reads the one before it any more
    const int next_keys = copy(strip + kChosenWarps, 1 - stage);
    if (keys > 0) {
      const int begin[2] = {0, 0}, end[2] = {keys, keys};
      const uint32_t at = strips + stage * Stage::kBytes;
      backward.template Take<kChosenKeys>(at, at + Stage::kValuesAt, scale_log2, begin, end);
    }
    keys = next_keys;
    stage = 1 - stage;
  }

  WaitForCopies<0>();
  __syncthreads();
  float* const partial =
      reinterpret_cast<float*>(shared);  // [kChosenWarps, kChosenRows, kPartialWidth], in the strips' place
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < KW / 8; ++j) {
      *reinterpret_cast<float2*>(partial + (warp * kChosenRows + lane / 4 + i * 8) * kPartialWidth + j * 8 +
                                 lane % 4 * 2) = make_float2(backward.d_q[j][2 * i], backward.d_q[j][2 * i + 1]);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < part.heads * params.key_width; i += kChosenThreads) {
    const int row = i / params.key_width, channel = i % params.key_width;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kChosenWarps; ++w) sum += partial[(w * kChosenRows + row) * kPartialWidth + channel];
    params.d_q[part.first_row * params.key_width + i] += params.scale * sum;
  }
}

}  // namespace

void SelectedBackwardQSm80(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params) {
  DispatchBackwardWidths(params.key_width, params.value_width, [&]<int KW, int VW>() {
    LaunchChosen(stream, operation, SelectedBackwardQKernel<KW, VW>, kSharedBytes<KW, VW>, params);
  });
}

}  // namespace longspan
