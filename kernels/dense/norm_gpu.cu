// RMSNorm (formulas in norm_cpu.cc). A block has a row at a time and holds it in registers; bound by memory. The
// weight's gradient is summed over each block's rows, then over the blocks.
#include "kernels/base/gpu_common.cuh"
#include "kernels/base/row_sums_gpu.cuh"
#include "kernels/dense/check.h"
#include "kernels/dense/gpu.h"

namespace longspan {
namespace {

template <int kThreads>
__device__ float RowSum(float x) {
  if constexpr (kThreads == kWarp) {
    return WarpSum(x);
  } else {
    return BlockSum(x);
  }
}

// Thread t holds channels t, t + kThreads, .. of its row: at most kItems.
template <typename T, int kThreads, int kItems>
__device__ void LoadRow(const T* row, int width, float (&values)[kItems]) {
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int c = i * kThreads + threadIdx.x;
    values[i] = c < width ? ToFloat(row[c]) : 0.f;
  }
}

template <int kThreads, int kItems>
__device__ float InverseRms(const float (&x)[kItems], int width, float eps) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kItems; ++i) squares += x[i] * x[i];
  return 1.f / sqrtf(RowSum<kThreads>(squares) / width + eps);
}

template <typename T, int kThreads, int kItems>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const T* x, const T* weight, T* y, int64_t rows, int width, float eps) {
  float w[kItems], values[kItems];
  LoadRow<T, kThreads>(weight, width, w);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    LoadRow<T, kThreads>(x + row * width, width, values);
    const float inverse = InverseRms<kThreads>(values, width, eps);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int c = i * kThreads + threadIdx.x;
      if (c < width) y[row * width + c] = FromFloat<T>(values[i] * inverse * w[i]);
    }
  }
}

// d_x may be d_y: a thread reads its channels before it writes them.
template <typename T, int kThreads, int kItems>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const T* x, const T* weight, const T* d_y, T* d_x, float* parts, int64_t rows, int64_t part_rows,
                   int width, float eps, bool accumulate) {
  float w[kItems], d_w[kItems], values[kItems], slope[kItems];
  LoadRow<T, kThreads>(weight, width, w);
#pragma unroll
  for (int i = 0; i < kItems; ++i) d_w[i] = 0;
  const int64_t begin = blockIdx.x * part_rows, end = min(rows, begin + part_rows);
  for (int64_t row = begin; row < end; ++row) {
    LoadRow<T, kThreads>(x + row * width, width, values);
    LoadRow<T, kThreads>(d_y + row * width, width, slope);
    const float inverse = InverseRms<kThreads>(values, width, eps);
    float product = 0;
#pragma unroll
    for (int i = 0; i < kItems; ++i) product += slope[i] * w[i] * values[i];
    const float pull = RowSum<kThreads>(product) * inverse * inverse * inverse / width;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      d_w[i] += slope[i] * inverse * values[i];
      const int c = i * kThreads + threadIdx.x;
      if (c < width) {
        T* const target = d_x + row * width + c;
        const float change = inverse * slope[i] * w[i] - values[i] * pull;
        *target = FromFloat<T>(accumulate ? ToFloat(*target) + change : change);
      }
    }
  }
  if (!parts) return;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int c = i * kThreads + threadIdx.x;
    if (c < width) parts[blockIdx.x * static_cast<int64_t>(width) + c] = d_w[i];
  }
}

// f.operator()<kThreads, kItems>() for rows of this width.
template <typename F>
void DispatchWidth(int64_t width, const F& f) {
  if (width <= 4 * kWarp) {
    f.template operator()<kWarp, 4>();
  } else if (width <= 8 * kWarp) {
    f.template operator()<kWarp, 8>();
  } else if (width <= 8 * 256) {
    f.template operator()<256, 8>();
  } else {
    f.template operator()<512, 32>();
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
      DispatchWidth(width, [&]<int kThreads, int kItems>() {
        const auto grid = static_cast<unsigned>(std::min<int64_t>(rows, 8192));
        ForwardKernel<T, kThreads, kItems>
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
    // Rows of heads (QK-norm) are narrow and many: more parts keep the GPU full.
    const int64_t wanted = width <= 8 * kWarp ? 8 * kRowParts : 2 * kRowParts;
    const int64_t part_rows = CeilDiv(rows, wanted), count = CeilDiv(rows, part_rows);
    float* parts = nullptr;
    if (gradient.d_weight) parts = static_cast<float*>(norm_scratch_.Get(stream, count * width * 4));
    DispatchFloatGpu(dtype, [&]<typename T>() {
      DispatchWidth(width, [&]<int kThreads, int kItems>() {
        BackwardKernel<T, kThreads, kItems><<<static_cast<unsigned>(count), kThreads, 0, cuda>>>(
            GpuData<T>(args.x), GpuData<T>(args.weight), GpuData<T>(gradient.d_y), GpuData<T>(gradient.d_x), parts,
            rows, part_rows, static_cast<int>(width), static_cast<float>(args.eps), gradient.accumulate_d_x);
      });
    });
    if (parts) AddParts(cuda, parts, count, width, GpuData<float>(gradient.d_weight));
  });
}

}  // namespace longspan
