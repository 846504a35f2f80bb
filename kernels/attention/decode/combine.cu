// Splits and branches together: overwrites the step's outputs. A warp takes one head of a query: its splits' weights
// first, gates and sums of the softmax included, then their results in order. Bound by latency; what it reads was
// written just before.
#include "kernels/attention/decode/params.cuh"

namespace longspan {
namespace {

constexpr int kWarps = 4;
constexpr int kChannels = 4;  // of a lane
static_assert(kWarp * kChannels >= kMaxSplitValueWidth);

template <typename T>
__global__ void __launch_bounds__(kWarps* kWarp) CombineSplitsKernel(const __grid_constant__ AttendParams p) {
  extern __shared__ float2 all_stats[];
  const int number = blockIdx.y, head = blockIdx.x * kWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (head >= p.heads) return;
  const int query = p.first_query + number, position = p.step.queries[query].y;
  const int64_t row = static_cast<int64_t>(query) * p.heads + head;
  const int64_t first = (static_cast<int64_t>(number) * p.heads + head) * p.splits();
  // In the order in which their splits lie: the branches, what they have, where.
  const int branch[3] = {0, 2, 1};
  const int count[3] = {p.CompressedSplits(position), p.WindowSplits(position), p.SelectedSplits(position)};
  const int begin[3] = {0, p.compressed_splits, p.compressed_splits + p.window_splits};
  float2* const stats = all_stats + threadIdx.x / kWarp * p.splits();  // then weights in x
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    float largest = -CUDART_INF_F, sum = 0;
    for (int s = lane; s < count[i]; s += kWarp) {
      const float2 of = p.stats[first + begin[i] + s];
      stats[begin[i] + s] = of;
      largest = fmaxf(largest, of.x);
    }
    largest = WarpMax(largest);
    for (int s = lane; s < count[i]; s += kWarp) {
      float2& of = stats[begin[i] + s];
      of.x = Exp2(of.x - largest);
      sum = fmaf(of.x, of.y, sum);
    }
    const float gate = ToFloat(static_cast<const T*>(p.gates)[row * 3 + branch[i]]) / WarpSum(sum);
    for (int s = lane; s < count[i]; s += kWarp) stats[begin[i] + s].x *= gate;
  }
  __syncwarp();
  const int channel = lane * kChannels;
  if (channel >= p.value_width) return;
  float total[kChannels] = {};
#pragma unroll
  for (int i = 0; i < 3; ++i) {
#pragma unroll 8
    for (int s = begin[i]; s < begin[i] + count[i]; ++s) {
      const float weight = stats[s].x;
      const float4 x = *reinterpret_cast<const float4*>(p.o + (first + s) * p.value_width + channel);
      total[0] = fmaf(x.x, weight, total[0]);
      total[1] = fmaf(x.y, weight, total[1]);
      total[2] = fmaf(x.z, weight, total[2]);
      total[3] = fmaf(x.w, weight, total[3]);
    }
  }
  T* const out = static_cast<T*>(p.out) + row * p.value_width + channel;
#pragma unroll
  for (int i = 0; i < kChannels; ++i) out[i] = FromFloat<T>(total[i]);
}

}  // namespace

int64_t CombineBytes(const AttendParams& params) { return int64_t{kWarps} * params.splits() * int64_t{sizeof(float2)}; }

void LaunchCombine(cudaStream_t stream, DType dtype, const AttendParams& params, int queries) {
  const int64_t bytes = CombineBytes(params);
  DispatchFloatGpu(dtype, [&]<typename T>() {
    CudaCheck(cudaFuncSetAttribute(CombineSplitsKernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(bytes)),
              "decode.combine");
    CombineSplitsKernel<T><<<dim3(GridFor(params.heads, kWarps), queries), kWarps * kWarp, bytes, stream>>>(params);
  });
}

}  // namespace longspan
