// Sums in F64 by a cut that does not depend on the GPU: kParts blocks stride over x, one block adds their parts. And
// the clipping scale, on the device, so that no step waits for the host.
#include "kernels/base/gpu_common.cuh"
#include "kernels/train/check.h"
#include "kernels/train/gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 256;
constexpr int kParts = 512;
constexpr int kAhead = 8;  // loads under way

template <typename T, bool kSquares>
__global__ void __launch_bounds__(kThreads) PartsKernel(const T* x, int64_t count, double* parts) {
  constexpr int64_t kStride = kParts * kThreads;
  double sum = 0;
  const auto add = [&](T x) {
    const double value = ToFloat(x);
    sum += kSquares ? value * value : value;
  };
  int64_t i = GridThread();
  for (; i + (kAhead - 1) * kStride < count; i += kAhead * kStride) {
    T values[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) values[a] = x[i + a * kStride];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) add(values[a]);
  }
  for (; i < count; i += kStride) add(x[i]);
  sum = BlockSum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kParts) TotalKernel(const double* parts, double* total) {
  const double sum = BlockSum(parts[threadIdx.x]);
  if (threadIdx.x == 0) *total += sum;
}

__global__ void ClipKernel(const double* sum_of_squares, const double* loss_at, double max_norm, double norm_limit,
                           double loss_limit, double* scale) {
  const double norm = sqrt(*sum_of_squares), loss = loss_at ? *loss_at : 0;
  if (!isfinite(norm) || !isfinite(loss) || norm > norm_limit || loss > loss_limit) {
    *scale = NAN;
  } else {
    *scale = max_norm > 0 && norm > max_norm ? max_norm / norm : 1;
  }
}

template <bool kSquares>
void AddTerms(Stream& stream, GpuScratch& scratch, const char* name, const Tensor& x, const Tensor& sum) {
  const Operation operation = OnGpu(name);
  const DType dtype = CheckSum(operation, x, sum);
  LaunchGpu(stream, name, SumCost(x), [&](cudaStream_t cuda) {
    if (x.size() == 0) return;
    auto* const parts = static_cast<double*>(scratch.Get(stream, kParts * sizeof(double)));
    DispatchFloatGpu(dtype, [&]<typename T>() {
      PartsKernel<T, kSquares><<<kParts, kThreads, 0, cuda>>>(GpuData<T>(x), x.size(), parts);
    });
    TotalKernel<<<1, kParts, 0, cuda>>>(parts, GpuData<double>(sum));
  });
}

}  // namespace

void GpuTrain::AddSumOfSquares(Stream& stream, const Tensor& x, const Tensor& sum) {
  AddTerms<true>(stream, sum_scratch_, "train.sum_of_squares", x, sum);
}

void GpuTrain::AddSum(Stream& stream, const Tensor& x, const Tensor& sum) {
  AddTerms<false>(stream, sum_scratch_, "train.sum", x, sum);
}

void GpuTrain::ClipScale(Stream& stream, const ClipScaleArgs& args) {
  const Operation operation = OnGpu("train.clip_scale");
  CheckClipScale(operation, args);
  LaunchGpu(stream, operation.name, Cost{}, [&](cudaStream_t cuda) {
    ClipKernel<<<1, 1, 0, cuda>>>(GpuData<double>(args.sum_of_squares), GpuData<double>(args.loss), args.max_norm,
                                  args.norm_limit, args.loss_limit, GpuData<double>(args.scale));
  });
}

}  // namespace longspan
