// RoPE. A block has some rows; their cosines and sines are computed once, in F64 as on the CPU, for all heads, a thread
// an angle. x and y may differ in type and may be one tensor. A thread has kRun channels of either half at a time.
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
    RopeKernel(const X* x, Y* y, const int32_t* positions, const double* frequency, int64_t rows, int block_rows,
               int heads, int half, double factor, double sine_factor) {
  __shared__ float cosine[kMaxHalf], sine[kMaxHalf];  // [block_rows, half]
  const int runs = half / kRun, row_items = heads * runs;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * block_rows; first < rows;
       first += static_cast<int64_t>(gridDim.x) * block_rows) {
    const int here = static_cast<int>(min(rows - first, int64_t{block_rows}));
    __syncthreads();
    for (int i = threadIdx.x; i < here * half; i += kThreads) {
      double s, k;
      sincos(positions[first + i / half] * frequency[i % half], &s, &k);
      cosine[i] = static_cast<float>(k * factor);
      sine[i] = static_cast<float>(s * sine_factor);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < here * row_items; i += kThreads) {
      const int row = i / row_items, of_row = i - row * row_items, head = of_row / runs,
                c = (of_row - head * runs) * kRun, angle = row * half + c;
      const int64_t at = ((first + row) * heads + head) * 2 * half + c;
      float a[kRun], b[kRun];
      LoadRun<kRun>(x + at, a);
      LoadRun<kRun>(x + at + half, b);
#pragma unroll
      for (int j = 0; j < kRun; ++j) {
        const float before = a[j];
        a[j] = before * cosine[angle + j] - b[j] * sine[angle + j];
        b[j] = b[j] * cosine[angle + j] + before * sine[angle + j];
      }
      StoreRun<kRun>(y + at, a);
      StoreRun<kRun>(y + at + half, b);
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
    const int64_t block_rows = std::max<int64_t>(1, kThreads / half);
    const auto grid = static_cast<unsigned>(std::min<int64_t>(CeilDiv(rows, block_rows), 1 << 20));
    DispatchFloatGpu(from, [&]<typename X>() {
      DispatchFloatGpu(to, [&]<typename Y>() {
        const auto launch = [&]<int kRun>() {
          RopeKernel<X, Y, kRun><<<grid, kThreads, 0, cuda>>>(
              GpuData<X>(args.x), GpuData<Y>(args.y), GpuData<int32_t>(args.positions), GpuData<double>(args.frequency),
              rows, static_cast<int>(block_rows), static_cast<int>(heads), static_cast<int>(half), args.factor,
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
