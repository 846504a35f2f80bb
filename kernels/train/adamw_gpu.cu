// AdamW in F32, a thread an element, bound by memory. With a master the weight is its copy, rounded to the nearest.
#include <cmath>

#include "kernels/base/gpu_common.cuh"
#include "kernels/train/check.h"
#include "kernels/train/gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 256;

struct Constants {
  float beta1, beta2, rest1, rest2, correction1, correction2, rate, eps, decay;
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    AdamWKernel(T* weight, float* master, const float* gradient, float* m, float* v, const double* grad_scale,
                int64_t count, Constants k) {
  const auto scale = static_cast<float>(*grad_scale);
  if (isnan(scale)) return;
  for (int64_t i = GridThread(); i < count; i += GridThreads()) {
    const float g = gradient[i] * scale;
    const float new_m = k.beta1 * m[i] + k.rest1 * g;
    const float new_v = k.beta2 * v[i] + k.rest2 * g * g;
    const float old = master ? master[i] : ToFloat(weight[i]);
    const float update = new_m * k.correction1 / (sqrtf(new_v * k.correction2) + k.eps) + k.decay * old;
    const float result = old - k.rate * update;
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
      AdamWKernel<<<GridFor(count, kThreads), kThreads, 0, cuda>>>(
          GpuData<T>(args.weight), GpuData<float>(args.master), GpuData<float>(args.gradient), GpuData<float>(args.m),
          GpuData<float>(args.v), GpuData<double>(args.grad_scale), count, constants);
    });
  });
}

}  // namespace longspan
