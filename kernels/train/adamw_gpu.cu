// AdamW in F32, a thread a few elements, read before the first is used, bound by memory. With a master the weight is
// its copy, rounded to the nearest.
#include <cmath>

#include "kernels/base/gpu_common.cuh"
#include "kernels/train/check.h"
#include "kernels/train/gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;

struct Constants {
  float beta1, beta2, rest1, rest2, correction1, correction2, rate, eps, decay;
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    AdamWKernel(T* weight, float* master, const float* gradient, float* m, float* v, const double* grad_scale,
                int64_t count, Constants k) {
  const auto scale = static_cast<float>(*grad_scale);
  if (isnan(scale)) return;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kPerThread + threadIdx.x;
  float g[kPerThread], old_m[kPerThread], old_v[kPerThread], old[kPerThread];
#pragma unroll
  for (int a = 0; a < kPerThread; ++a) {
    const int64_t i = first + a * kThreads;
    if (i >= count) break;
    g[a] = gradient[i] * scale;
    old_m[a] = m[i];
    old_v[a] = v[i];
    old[a] = master ? master[i] : ToFloat(weight[i]);
  }
#pragma unroll
  for (int a = 0; a < kPerThread; ++a) {
    const int64_t i = first + a * kThreads;
    if (i >= count) break;
    const float new_m = k.beta1 * old_m[a] + k.rest1 * g[a];
    const float new_v = k.beta2 * old_v[a] + k.rest2 * g[a] * g[a];
    const float update = new_m * k.correction1 / (sqrtf(new_v * k.correction2) + k.eps) + k.decay * old[a];
    const float result = old[a] - k.rate * update;
    m[i] = new_m;
    v[i] = new_v;
    if (master) master[i] = result;
    weight[i] = FromFloat<T>(result);
  }
}

}  // namespace

void GpuTrain::AdamW(Stream& stream, const AdamWArgs& args) {
  const Operation operation = OnGpu("train.adamw");
  const DType dtype = CheckAdamW(operation, args);
  if (args.master) RequireTensor(operation, "master", args.master, DType::kF32, args.weight.shape);
  LS_CHECK(args.master || dtype == DType::kF32, "{}: master: expected one for a weight in {}, found none",
           operation.name, DTypeName(dtype));
  const auto steps = static_cast<double>(args.step);
  const Constants constants = {
      .beta1 = static_cast<float>(args.beta1),
      .beta2 = static_cast<float>(args.beta2),
      .rest1 = static_cast<float>(1 - args.beta1),
      .rest2 = static_cast<float>(1 - args.beta2),
      .correction1 = static_cast<float>(1 / (1 - std::pow(args.beta1, steps))),
      .correction2 = static_cast<float>(1 / (1 - std::pow(args.beta2, steps))),
      .rate = static_cast<float>(args.learning_rate),
      .eps = static_cast<float>(args.eps),
      .decay = static_cast<float>(args.weight_decay),
  };
  const int64_t count = args.weight.size();
  LaunchGpu(stream, operation.name, AdamWCost(args), [&](cudaStream_t cuda) {
    if (count == 0) return;
    DispatchFloatGpu(dtype, [&]<typename T>() {
      AdamWKernel<<<GridFor(count, kThreads * kPerThread), kThreads, 0, cuda>>>(
          GpuData<T>(args.weight), GpuData<float>(args.master), GpuData<float>(args.gradient), GpuData<float>(args.m),
          GpuData<float>(args.v), GpuData<double>(args.grad_scale), count, constants);
    });
  });
}

}  // namespace longspan
