// Splits and branches together: overwrites the step's outputs. A warp takes one head of a query and merges the splits
// of each branch in order. Bound by latency; what it reads was written just before.
#include "kernels/attention/decode/early.cuh"
#include "kernels/attention/decode/params.cuh"

namespace longspan {
namespace {

constexpr int kWarps = 4;
constexpr int kChannels = 4;  // of a lane

template <typename T>
__global__ void __launch_bounds__(kWarps* kWarp) CombineSplitsKernel(const __grid_constant__ AttendParams p) {
  WaitForEarlier();
  const int number = blockIdx.y, head = blockIdx.x * kWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (head >= p.heads) return;
  const int query = p.first_query + number, position = p.step.queries[query].y;
  const int64_t row = static_cast<int64_t>(query) * p.heads + head;
  const int64_t first = (static_cast<int64_t>(number) * p.heads + head) * p.splits();
  const int begins[3] = {0, p.compressed_splits + p.window_splits, p.compressed_splits};
  const int counts[3] = {p.CompressedSplits(position), p.SelectedSplits(position), p.WindowSplits(position)};
  const int channel = lane * kChannels;
  const bool active = channel < p.value_width;
  float total[kChannels] = {};
#pragma unroll
  for (int branch = 0; branch < 3; ++branch) {
    const float2* const stats = p.stats + first + begins[branch];
    float largest = -CUDART_INF_F, sum = 0, o[kChannels] = {};
    for (int s = lane; s < counts[branch]; s += kWarp) largest = fmaxf(largest, stats[s].x);
    largest = WarpMax(largest);
#pragma unroll 4
    for (int s = 0; s < counts[branch]; ++s) {
      const float2 of = stats[s];
      const float weight = Exp2(of.x - largest);
      sum = fmaf(of.y, weight, sum);
      if (active) {
        const float4 x = *reinterpret_cast<const float4*>(p.o + (first + begins[branch] + s) * p.value_width + channel);
        o[0] = fmaf(x.x, weight, o[0]);
        o[1] = fmaf(x.y, weight, o[1]);
        o[2] = fmaf(x.z, weight, o[2]);
        o[3] = fmaf(x.w, weight, o[3]);
      }
    }
    if (counts[branch] == 0) continue;
    const float gate = ToFloat(static_cast<const T*>(p.gates)[row * 3 + branch]);
    // As training rounds a branch's output.
#pragma unroll
    for (int i = 0; i < kChannels; ++i) total[i] += gate * ToFloat(FromFloat<T>(o[i] / sum));
  }
  if (!active) return;
  T* const out = static_cast<T*>(p.out) + row * p.value_width + channel;
#pragma unroll
  for (int i = 0; i < kChannels; ++i) out[i] = FromFloat<T>(total[i]);
}

}  // namespace

void LaunchDecodeCombine(cudaStream_t stream, DType dtype, const AttendParams& params, int queries) {
  DispatchFloatGpu(dtype, [&]<typename T>() {
    LaunchEarly(stream, CombineSplitsKernel<T>, dim3(GridFor(params.heads, kWarps), queries), kWarps * kWarp, 0,
                params);
  });
}

}  // namespace longspan
