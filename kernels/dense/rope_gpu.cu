// RoPE. A block has a row; its cosines and sines are computed once, in F64 as on the CPU, for all heads. x and y may
// differ in type and may be one tensor.
#include "kernels/base/gpu_common.cuh"
#include "kernels/dense/check.h"
#include "kernels/dense/gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kMaxHalf = 1024;

template <typename X, typename Y>
__global__ void __launch_bounds__(kThreads)
    RopeKernel(const X* x, Y* y, const int32_t* positions, const double* frequency, int64_t rows, int heads, int half,
               double factor, double sine_factor) {
  __shared__ float cosine[kMaxHalf], sine[kMaxHalf];
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    __syncthreads();
    for (int c = threadIdx.x; c < half; c += kThreads) {
      double s, k;
      sincos(positions[row] * frequency[c], &s, &k);
      cosine[c] = static_cast<float>(k * factor);
      sine[c] = static_cast<float>(s * sine_factor);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < heads * half; i += kThreads) {
      const int head = i / half, c = i - head * half;
      const int64_t at = (row * heads + head) * 2 * half + c;
      const float first = ToFloat(x[at]), second = ToFloat(x[at + half]);
      y[at] = FromFloat<Y>(first * cosine[c] - second * sine[c]);
      y[at + half] = FromFloat<Y>(second * cosine[c] + first * sine[c]);
    }
  }
}

}  // namespace

void GpuDense::Rope(Stream& stream, const RopeArgs& args) {
  const Operation operation = OnGpu("dense.rope");
  const DType from = CheckRope(operation, args), to = args.y.dtype;
  const int64_t rows = args.x.dim(0), heads = args.x.dim(1), half = args.x.dim(2) / 2;
  LS_CHECK(half <= kMaxHalf, "{}: x: expected an even width of at most {} on a GPU, found {}", operation.name,
           2 * kMaxHalf, args.x.shape.ToString());
  LaunchGpu(stream, operation.name, RopeCost(args), [&](cudaStream_t cuda) {
    if (args.x.size() == 0) return;
    const auto grid = static_cast<unsigned>(std::min<int64_t>(rows, 1 << 20));
    DispatchFloatGpu(from, [&]<typename X>() {
      DispatchFloatGpu(to, [&]<typename Y>() {
        RopeKernel<X, Y><<<grid, kThreads, 0, cuda>>>(GpuData<X>(args.x), GpuData<Y>(args.y),
                                                      GpuData<int32_t>(args.positions), GpuData<double>(args.frequency),
                                                      rows, static_cast<int>(heads), static_cast<int>(half),
                                                      args.factor, args.inverse ? -args.factor : args.factor);
      });
    });
  });
}

}  // namespace longspan
