// RoPE. A block has a row; its cosines and sines are computed once, in F64 as on the CPU, for all heads. x and y may
// differ in type and may be one tensor. A thread has kRun channels of either half at a time.
#include "kernels/base/gpu_common.cuh"
#include "kernels/dense/check.h"
#include "kernels/dense/gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kMaxHalf = 1024;

// Runs of 8 are one or two accesses of 16 bytes.
template <int kRun, typename T>
__device__ void LoadRun(const T* from, float (&to)[kRun]) {
  if constexpr (kRun == 1) {
    to[0] = ToFloat(*from);
  } else {
#pragma unroll
    for (int i = 0; i < kRun; i += kVector<T>) {
      LoadVector(from + i, *reinterpret_cast<float(*)[kVector<T>]>(to + i));
    }
  }
}
template <int kRun, typename T>
__device__ void StoreRun(T* to, const float (&from)[kRun]) {
  if constexpr (kRun == 1) {
    *to = FromFloat<T>(from[0]);
  } else {
#pragma unroll
    for (int i = 0; i < kRun; i += kVector<T>) {
      StoreVector(to + i, *reinterpret_cast<const float(*)[kVector<T>]>(from + i));
    }
  }
}

template <typename X, typename Y, int kRun>
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
    const int runs = half / kRun;
    for (int i = threadIdx.x; i < heads * runs; i += kThreads) {
      const int head = i / runs, c = (i - head * runs) * kRun;
      const int64_t at = (row * heads + head) * 2 * half + c;
      float first[kRun], second[kRun];
      LoadRun<kRun>(x + at, first);
      LoadRun<kRun>(x + at + half, second);
#pragma unroll
      for (int j = 0; j < kRun; ++j) {
        const float a = first[j], b = second[j];
        first[j] = a * cosine[c + j] - b * sine[c + j];
        second[j] = b * cosine[c + j] + a * sine[c + j];
      }
      StoreRun<kRun>(y + at, first);
      StoreRun<kRun>(y + at + half, second);
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
        const auto launch = [&]<int kRun>() {
          RopeKernel<X, Y, kRun><<<grid, kThreads, 0, cuda>>>(
              GpuData<X>(args.x), GpuData<Y>(args.y), GpuData<int32_t>(args.positions), GpuData<double>(args.frequency),
              rows, static_cast<int>(heads), static_cast<int>(half), args.factor,
              args.inverse ? -args.factor : args.factor);
        };
        if (half % 8 == 0) {
          launch.template operator()<8>();
        } else {
          launch.template operator()<1>();
        }
      });
    });
  });
}

}  // namespace longspan
