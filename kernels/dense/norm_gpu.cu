// RMSNorm (formulas in norm_cpu.cc). A warp or a block has a row at a time and holds it in registers; bound by memory.
// The weight's gradient is summed over each block's rows, then over the blocks.
#include "kernels/base/gpu_common.cuh"
#include "kernels/base/row_sums_gpu.cuh"
#include "kernels/dense/check.h"
#include "kernels/dense/gpu.h"

namespace longspan {
namespace {

// Both over the threads of a row, which are the block.
template <int kThreads>
__device__ float2 RowSums(float2 x) {
  x = {WarpSum(x.x), WarpSum(x.y)};
  if constexpr (kThreads > kWarp) {
    __shared__ float2 parts[kThreads / kWarp];
    const int lane = threadIdx.x % kWarp;
    __syncthreads();
    if (lane == 0) parts[threadIdx.x / kWarp] = x;
    __syncthreads();
    x = lane < kThreads / kWarp ? parts[lane] : float2{0, 0};
    x = {WarpSum(x.x), WarpSum(x.y)};
  }
  return x;
}

// kItems of a row's channels, of which thread t holds every kThreads-th run of kRun from the t-th on.
template <int kThreads, int kItems, int kRun>
struct RowPart {
  float at[kItems];

  static __device__ int Channel(int item) { return (item / kRun * kThreads + static_cast<int>(threadIdx.x)) * kRun; }

  template <typename T>
  __device__ void Load(const T* row, int width) {
#pragma unroll
    for (int i = 0; i < kItems; i += kRun) {
      const int c = Channel(i);
      if constexpr (kRun == 1) {
        at[i] = c < width ? ToFloat(row[c]) : 0.f;
      } else {
        float run[kRun] = {};
        if (c < width) LoadVector(row + c, run);
#pragma unroll
        for (int j = 0; j < kRun; ++j) at[i + j] = run[j];
      }
    }
  }

  template <typename T>
  __device__ void Store(T* row, int width) const {
#pragma unroll
    for (int i = 0; i < kItems; i += kRun) {
      const int c = Channel(i);
      if (c >= width) continue;
      if constexpr (kRun == 1) {
        row[c] = FromFloat<T>(at[i]);
      } else {
        float run[kRun];
#pragma unroll
        for (int j = 0; j < kRun; ++j) run[j] = at[i + j];
        StoreVector(row + c, run);
      }
    }
  }
};

__device__ inline float InverseRms(float squares, int width, float eps) { return 1.f / sqrtf(squares / width + eps); }

template <typename T, int kThreads, int kItems, int kRun>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const T* x, const T* weight, T* y, int64_t rows, int width, float eps) {
  RowPart<kThreads, kItems, kRun> w, values;
  w.Load(weight, width);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    values.Load(x + row * width, width);
    float2 sums = {0, 0};
#pragma unroll
    for (int i = 0; i < kItems; ++i) sums.x += values.at[i] * values.at[i];
    const float inverse = InverseRms(RowSums<kThreads>(sums).x, width, eps);
#pragma unroll
    for (int i = 0; i < kItems; ++i) values.at[i] = values.at[i] * inverse * w.at[i];
    values.Store(y + row * width, width);
  }
}

// d_x may be d_y: a thread reads its channels before it writes them.
template <typename T, int kThreads, int kItems, int kRun>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const T* x, const T* weight, const T* d_y, T* d_x, float* parts, int64_t rows, int64_t part_rows,
                   int width, float eps, bool accumulate) {
  using Part = RowPart<kThreads, kItems, kRun>;
  Part w, d_w, values, slope;
  w.Load(weight, width);
#pragma unroll
  for (int i = 0; i < kItems; ++i) d_w.at[i] = 0;
  const int64_t begin = blockIdx.x * part_rows, end = min(rows, begin + part_rows);
  for (int64_t row = begin; row < end; ++row) {
    values.Load(x + row * width, width);
    slope.Load(d_y + row * width, width);
    float2 sums = {0, 0};  // of squares, and of what d_y gains along x
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      sums.x += values.at[i] * values.at[i];
      sums.y += slope.at[i] * w.at[i] * values.at[i];
    }
    sums = RowSums<kThreads>(sums);
    const float inverse = InverseRms(sums.x, width, eps);
    const float pull = sums.y * inverse * inverse * inverse / width;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      d_w.at[i] += slope.at[i] * inverse * values.at[i];
      slope.at[i] = inverse * slope.at[i] * w.at[i] - values.at[i] * pull;
    }
    T* const target = d_x + row * width;
    if (accumulate) {
      values.Load(target, width);
#pragma unroll
      for (int i = 0; i < kItems; ++i) slope.at[i] += values.at[i];
    }
    slope.Store(target, width);
  }
  if (!parts) return;
  float* const part = parts + blockIdx.x * static_cast<int64_t>(width);
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int c = Part::Channel(i) + i % kRun;
    if (c < width) part[c] = d_w.at[i];
  }
}

constexpr int64_t kWarpWidth = 24 * kWarp;  // a warp holds rows up to this one in 96 registers

// f.operator()<kThreads, kItems, kRun>() for rows of this width: 16 bytes at a time where all rows begin at such.
template <typename T, typename F>
void DispatchWidth(int64_t width, const F& f) {
  constexpr int kRun = kVector<T>;
  if (width % kRun != 0) {
    if (width <= 8 * kWarp) {
      f.template operator()<kWarp, 8, 1>();
    } else {
      f.template operator()<512, 32, 1>();
    }
  } else if (width <= 8 * kWarp) {
    f.template operator()<kWarp, 8, kRun>();
  } else if (width <= kWarpWidth) {
    f.template operator()<kWarp, 24, kRun>();
  } else if (width <= 8 * 256) {
    f.template operator()<256, 8, kRun>();
  } else {
    f.template operator()<512, 32, kRun>();
  }
}

constexpr int64_t kMaxWidth = 512 * 32;

void CheckWidth(const Operation& operation, const RmsNormArgs& args) {
  LS_CHECK(args.weight.size() <= kMaxWidth, "{}: x: expected rows of 1 to {} channels on a GPU, found {}",
           operation.name, kMaxWidth, args.x.shape.ToString());
}

}  // namespace

void GpuDense::RmsNorm(Stream& stream, const RmsNormArgs& args) {
  const Operation operation = OnGpu("dense.rms_norm");
  const DType dtype = CheckRmsNorm(operation, args);
  CheckWidth(operation, args);
  RequireTensor(operation, "y", args.y, dtype, args.x.shape);
  const int64_t width = args.weight.size(), rows = args.x.size() / width;
  LaunchGpu(stream, operation.name, RmsNormCost(args), [&](cudaStream_t cuda) {
    if (rows == 0) return;
    DispatchFloatGpu(dtype, [&]<typename T>() {
      DispatchWidth<T>(width, [&]<int kThreads, int kItems, int kRun>() {
        const auto grid = static_cast<unsigned>(std::min<int64_t>(rows, 8192));
        ForwardKernel<T, kThreads, kItems, kRun>
            <<<grid, kThreads, 0, cuda>>>(GpuData<T>(args.x), GpuData<T>(args.weight), GpuData<T>(args.y), rows,
                                          static_cast<int>(width), static_cast<float>(args.eps));
      });
    });
  });
}

void GpuDense::RmsNormBackward(Stream& stream, const RmsNormArgs& args, const RmsNormGradient& gradient) {
  const Operation operation = OnGpu("dense.rms_norm_backward");
  const DType dtype = CheckRmsNormGradient(operation, args, gradient);
  CheckWidth(operation, args);
  const int64_t width = args.weight.size(), rows = args.x.size() / width;
  LaunchGpu(stream, operation.name, RmsNormBackwardCost(args, gradient), [&](cudaStream_t cuda) {
    if (rows == 0) return;
    const int64_t wanted = width <= kWarpWidth ? 8 * kRowParts : 2 * kRowParts;  // blocks of a warp fill a GPU later
    const int64_t part_rows = CeilDiv(rows, wanted), count = CeilDiv(rows, part_rows);
    float* parts = nullptr;
    if (gradient.d_weight) parts = static_cast<float*>(norm_scratch_.Get(stream, count * width * 4));
    DispatchFloatGpu(dtype, [&]<typename T>() {
      DispatchWidth<T>(width, [&]<int kThreads, int kItems, int kRun>() {
        BackwardKernel<T, kThreads, kItems, kRun><<<static_cast<unsigned>(count), kThreads, 0, cuda>>>(
            GpuData<T>(args.x), GpuData<T>(args.weight), GpuData<T>(gradient.d_y), GpuData<T>(gradient.d_x), parts,
            rows, part_rows, static_cast<int>(width), static_cast<float>(args.eps), gradient.accumulate_d_x);
      });
    });
    if (parts) AddParts(cuda, parts, count, width, GpuData<float>(gradient.d_weight));
  });
}

}  // namespace longspan
