// SwiGLU, the gates of NSA, addition: element by element, bound by memory. Products go by 16 bytes a thread where the
// addresses allow it.
#include <initializer_list>

#include "kernels/base/gpu_common.cuh"
#include "kernels/base/row_sums_gpu.cuh"
#include "kernels/dense/check.h"
#include "kernels/dense/gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 256;

__device__ float Sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

struct SwiGluForward {
  static constexpr int kIn = 2, kOut = 1;
  __device__ static void Apply(const float* in, float* out) { out[0] = in[0] * Sigmoid(in[0]) * in[1]; }
};

struct SwiGluSlopes {
  static constexpr int kIn = 3, kOut = 2;  // gate, up, d_y -> d_gate, d_up
  __device__ static void Apply(const float* in, float* out) {
    const float open = Sigmoid(in[0]);
    out[0] = in[2] * in[1] * open * (1.f + in[0] * (1.f - open));
    out[1] = in[2] * in[0] * open;
  }
};

struct Sum {
  static constexpr int kIn = 2, kOut = 1;
  __device__ static void Apply(const float* in, float* out) { out[0] = in[0] + in[1]; }
};

template <typename T, typename F>
struct Arrays {
  const T* in[F::kIn];
  T* out[F::kOut];
};

// out = F(in) for `count` elements, kWide at a time; outputs may be inputs.
template <typename T, typename F, int kWide>
__global__ void __launch_bounds__(kThreads) PointwiseKernel(Arrays<T, F> arrays, int64_t count) {
  for (int64_t i = GridThread() * kWide; i < count; i += GridThreads() * kWide) {
    float in[F::kIn][kWide], out[F::kOut][kWide];
#pragma unroll
    for (int a = 0; a < F::kIn; ++a) {
      if constexpr (kWide == 1) {
        in[a][0] = ToFloat(arrays.in[a][i]);
      } else {
        LoadVector(arrays.in[a] + i, in[a]);
      }
    }
#pragma unroll
    for (int e = 0; e < kWide; ++e) {
      float x[F::kIn], y[F::kOut];
#pragma unroll
      for (int a = 0; a < F::kIn; ++a) x[a] = in[a][e];
      F::Apply(x, y);
#pragma unroll
      for (int a = 0; a < F::kOut; ++a) out[a][e] = y[a];
    }
#pragma unroll
    for (int a = 0; a < F::kOut; ++a) {
      if constexpr (kWide == 1) {
        arrays.out[a][i] = FromFloat<T>(out[a][0]);
      } else {
        StoreVector(arrays.out[a] + i, out[a]);
      }
    }
  }
}

template <typename F>
void Pointwise(cudaStream_t cuda, DType dtype, const Tensor (&in)[F::kIn], const Tensor (&out)[F::kOut]) {
  const int64_t count = out[0].size();
  if (count == 0) return;
  bool wide = true;
  for (const Tensor& tensor : in) wide = wide && reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
  for (const Tensor& tensor : out) wide = wide && reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
  DispatchFloatGpu(dtype, [&]<typename T>() {
    Arrays<T, F> arrays;
    for (int a = 0; a < F::kIn; ++a) arrays.in[a] = GpuData<T>(in[a]);
    for (int a = 0; a < F::kOut; ++a) arrays.out[a] = GpuData<T>(out[a]);
    const auto grid = [](int64_t items) {
      return static_cast<unsigned>(std::min<int64_t>(CeilDiv(items, kThreads), 1 << 16));
    };
    if (wide && count % kVector<T> == 0) {
      PointwiseKernel<T, F, kVector<T>><<<grid(count / kVector<T>), kThreads, 0, cuda>>>(arrays, count);
    } else {
      PointwiseKernel<T, F, 1><<<grid(count), kThreads, 0, cuda>>>(arrays, count);
    }
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads) GateKernel(const T* x, const T* bias, T* y, int64_t count, int64_t width) {
  for (int64_t i = GridThread(); i < count; i += GridThreads()) {
    y[i] = FromFloat<T>(Sigmoid(ToFloat(x[i]) + ToFloat(bias[i % width])));
  }
}

// A block has a part of the rows, as many at once as it has threads for; narrow rows leave few threads without work.
template <typename T, typename G>
__global__ void __launch_bounds__(kThreads)
    GateBackwardKernel(const T* y, const G* d_y, T* d_x, float* parts, int64_t rows, int64_t part_rows, int64_t width) {
  __shared__ float sums[kThreads];
  const int64_t begin = blockIdx.x * part_rows, end = min(rows, begin + part_rows);
  const int columns = static_cast<int>(min(width, int64_t{kThreads})), at_once = kThreads / columns;
  const int first = threadIdx.x / columns, column = threadIdx.x % columns;
  for (int64_t c = column; c - column < width; c += columns) {
    float sum = 0;
    for (int64_t row = begin + first; c < width && first < at_once && row < end; row += at_once) {
      const int64_t i = row * width + c;
      const float open = ToFloat(y[i]);
      const float slope = ToFloat(d_y[i]) * open * (1.f - open);
      d_x[i] = FromFloat<T>(slope);
      sum += slope;
    }
    if (!parts) continue;
    __syncthreads();
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (first > 0 || c >= width) continue;
    for (int other = 1; other < at_once; ++other) sum += sums[other * columns + column];
    parts[blockIdx.x * width + c] = sum;
  }
}

}  // namespace

void GpuDense::SwiGlu(Stream& stream, const SwiGluArgs& args) {
  const Operation operation = OnGpu("dense.swiglu");
  const DType dtype = CheckSwiGlu(operation, args);
  RequireTensor(operation, "y", args.y, dtype, args.gate.shape);
  LaunchGpu(stream, operation.name, SwiGluCost(args), [&](cudaStream_t cuda) {
    Pointwise<SwiGluForward>(cuda, dtype, {args.gate, args.up}, {args.y});
  });
}

void GpuDense::SwiGluBackward(Stream& stream, const SwiGluArgs& args, const SwiGluGradient& gradient) {
  const Operation operation = OnGpu("dense.swiglu_backward");
  const DType dtype = CheckSwiGluGradient(operation, args, gradient);
  LaunchGpu(stream, operation.name, SwiGluBackwardCost(args), [&](cudaStream_t cuda) {
    Pointwise<SwiGluSlopes>(cuda, dtype, {args.gate, args.up, gradient.d_y}, {gradient.d_gate, gradient.d_up});
  });
}

void GpuDense::Gate(Stream& stream, const GateArgs& args) {
  const Operation operation = OnGpu("dense.gate");
  const DType dtype = CheckGate(operation, args);
  const int64_t count = args.x.size(), width = args.x.dim(1);
  LaunchGpu(stream, operation.name, GateCost(args), [&](cudaStream_t cuda) {
    if (count == 0) return;
    DispatchFloatGpu(dtype, [&]<typename T>() {
      GateKernel<<<GridFor(count, kThreads), kThreads, 0, cuda>>>(GpuData<T>(args.x), GpuData<T>(args.bias),
                                                                  GpuData<T>(args.y), count, width);
    });
  });
}

void GpuDense::GateBackward(Stream& stream, const GateArgs& args, const GateGradient& gradient) {
  const Operation operation = OnGpu("dense.gate_backward");
  const DType dtype = CheckGateGradient(operation, args, gradient);
  const int64_t rows = args.y.dim(0), width = args.y.dim(1);
  LaunchGpu(stream, operation.name, GateBackwardCost(args, gradient), [&](cudaStream_t cuda) {
    if (args.y.size() == 0) return;
    const int64_t part_rows = CeilDiv(rows, 4 * kRowParts), count = CeilDiv(rows, part_rows);
    float* parts = nullptr;
    if (gradient.d_bias) parts = static_cast<float*>(gate_scratch_.Get(stream, count * width * 4));
    DispatchFloatGpu(dtype, [&]<typename T>() {
      DispatchFloatGpu(gradient.d_y.dtype, [&]<typename G>() {
        GateBackwardKernel<<<static_cast<unsigned>(count), kThreads, 0, cuda>>>(
            GpuData<T>(args.y), GpuData<G>(gradient.d_y), GpuData<T>(gradient.d_x), parts, rows, part_rows, width);
      });
    });
    if (parts) AddParts(cuda, parts, count, width, GpuData<float>(gradient.d_bias));
  });
}

void GpuDense::Add(Stream& stream, const Tensor& x, const Tensor& y) {
  const Operation operation = OnGpu("dense.add");
  const DType dtype = CheckAdd(operation, x, y);
  LaunchGpu(stream, operation.name, AddCost(y), [&](cudaStream_t cuda) { Pointwise<Sum>(cuda, dtype, {x, y}, {y}); });
}

}  // namespace longspan
