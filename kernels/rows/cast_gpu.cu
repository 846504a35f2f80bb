// Copies that cast between F32 and BF16, to the nearest, ties to even; other types only to themselves. And zeros.
#include "kernels/base/gpu_common.cuh"
#include "kernels/rows/gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;

template <typename From, typename To>
__global__ void __launch_bounds__(kThreads) CastKernel(const From* from, To* to, int64_t count) {
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kThreads * kPerThread + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int64_t at = begin + i * kThreads;
    if (at < count) to[at] = FromFloat<To>(ToFloat(from[at]));
  }
}

bool IsFloating(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBf16; }

}  // namespace

void GpuRows::Copy(Stream& stream, const Tensor& from, const Tensor& to) {
  const Operation operation = OnGpu("rows.copy");
  RequireContiguous(operation, "from", from);
  RequireTensor(operation, "to", to, to.dtype, from.shape);
  LS_CHECK(from.dtype == to.dtype || (IsFloating(from.dtype) && IsFloating(to.dtype)),
           "{}: expected equal types, or F32 and BF16, found {} to {}", operation.name, DTypeName(from.dtype),
           DTypeName(to.dtype));
  LaunchGpu(stream, operation.name, Cost{0, static_cast<double>(from.bytes() + to.bytes())}, [&](cudaStream_t cuda) {
    if (to.size() == 0) return;
    if (from.dtype == to.dtype) {
      CudaCheck(cudaMemcpyAsync(to.data, from.data, to.bytes(), cudaMemcpyDeviceToDevice, cuda), operation.name);
      return;
    }
    const unsigned grid = GridFor(to.size(), kThreads * kPerThread);
    if (to.dtype == DType::kBf16) {
      CastKernel<<<grid, kThreads, 0, cuda>>>(GpuData<float>(from), GpuData<Bf16>(to), to.size());
    } else {
      CastKernel<<<grid, kThreads, 0, cuda>>>(GpuData<Bf16>(from), GpuData<float>(to), to.size());
    }
  });
}

void GpuRows::Zero(Stream& stream, const Tensor& x) {
  const Operation operation = OnGpu("rows.zero");
  RequireContiguous(operation, "x", x);
  LaunchGpu(stream, operation.name, Cost{0, 1.0 * x.bytes()}, [&](cudaStream_t cuda) {
    if (x.size() > 0) CudaCheck(cudaMemsetAsync(x.data, 0, x.bytes(), cuda), operation.name);
  });
}

}  // namespace longspan
