// AdamW in F32, a thread an element, bound by memory. With a master the weight is its copy, rounded to the nearest.
#include <cmath>

#include "kernels/base/gpu_common.cuh"
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
  const DType dtype = RequireFloat(operation, "weight", args.weight);
  RequireRank(operation, "weight", args.weight, 1);
  RequireTensor(operation, "gradient", args.gradient, DType::kF32, args.weight.shape);
  RequireTensor(operation, "m", args.m, DType::kF32, args.weight.shape);
  RequireTensor(operation, "v", args.v, DType::kF32, args.weight.shape);
  RequireTensor(operation, "grad_scale", args.grad_scale, DType::kF64, {1});
  if (args.master) RequireTensor(operation, "master", args.master, DType::kF32, args.weight.shape);
  LS_CHECK(args.master || dtype == DType::kF32, "{}: master: expected one for a weight in {}, found none",
           operation.name, DTypeName(dtype));
  LS_CHECK(args.step >= 1, "{}: step: expected 1 for the first, found {}", operation.name, args.step);
  LS_CHECK(args.beta1 >= 0 && args.beta1 < 1 && args.beta2 >= 0 && args.beta2 < 1,
           "{}: expected beta1 and beta2 in [0,1), found {} and {}", operation.name, args.beta1, args.beta2);
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
  const double bytes = 5.0 * args.m.bytes() + (args.master ? 2.0 * args.master.bytes() : 0) + args.weight.bytes();
  LaunchGpu(stream, operation.name, Cost{14.0 * count, bytes}, [&](cudaStream_t cuda) {
    if (count == 0) return;
    DispatchFloatGpu(dtype, [&]<typename T>() {
      AdamWKernel<<<GridFor(count, kThreads), kThreads, 0, cuda>>>(
          GpuData<T>(args.weight), GpuData<float>(args.master), GpuData<float>(args.gradient), GpuData<float>(args.m),
          GpuData<float>(args.v), GpuData<double>(args.grad_scale), count, constants);
    });
  });
}

}  // namespace longspan
