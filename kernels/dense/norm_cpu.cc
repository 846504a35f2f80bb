// RMSNorm. With r = 1/sqrt(mean(x^2) + eps), recomputed in the backward:
//   y = r x w      d_x = r (d_y w) - x r^3/W sum(d_y w x)      d_w = sum over rows of d_y r x
#include <cmath>

#include "kernels/base/blocks_cpu.h"
#include "kernels/dense/check.h"
#include "kernels/dense/cpu.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

template <typename T>
T InverseRms(const T* x, int64_t width, double eps) {
  const T squares = LaneSum<T>(width, [x](int64_t c) { return x[c] * x[c]; });
  return T(1) / std::sqrt(squares / static_cast<T>(width) + static_cast<T>(eps));
}

}  // namespace

void CpuDense::RmsNorm(Stream& stream, const RmsNormArgs& args) {
  constexpr const char* kName = "dense.rms_norm";
  const DType dtype = CheckRmsNorm(kName, args);
  RequireTensor(kName, "y", args.y, dtype, args.x.shape);
  Launch(stream, kName, RmsNormCost(args), [args, dtype] {
    DispatchFloat(dtype, [&]<typename T>() {
      const int64_t width = args.weight.size(), rows = args.x.size() / width;
      const T* const weight = args.weight.As<T>();
#pragma omp parallel for if (args.x.size() > kBlockElements)
      for (int64_t row = 0; row < rows; ++row) {
        const T* const x = args.x.As<T>() + row * width;
        T* const y = args.y.As<T>() + row * width;
        const T inverse = InverseRms(x, width, args.eps);
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) y[c] = x[c] * inverse * weight[c];
      }
    });
  });
}

void CpuDense::RmsNormBackward(Stream& stream, const RmsNormArgs& args, const RmsNormGradient& gradient) {
  constexpr const char* kName = "dense.rms_norm_backward";
  const DType dtype = CheckRmsNormGradient(kName, args, gradient);
  Launch(stream, kName, RmsNormBackwardCost(args, gradient), [args, gradient, dtype] {
    DispatchFloat(dtype, [&]<typename T>() {
      const int64_t width = args.weight.size();
      const T* const weight = args.weight.As<T>();
      T* const total = gradient.d_weight ? gradient.d_weight.As<T>() : nullptr;
      AddOverRows(args.x.size() / width, width, total, [&](int64_t row, T* d_weight) {
        const T* const x = args.x.As<T>() + row * width;
        const T* const d_y = gradient.d_y.As<T>() + row * width;
        T* const d_x = gradient.d_x.As<T>() + row * width;
        const T inverse = InverseRms(x, width, args.eps);
        const T product = LaneSum<T>(width, [=](int64_t c) { return d_y[c] * weight[c] * x[c]; });
        const T pull = product * inverse * inverse * inverse / static_cast<T>(width);
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) d_weight[c] += d_y[c] * inverse * x[c];
        if (gradient.accumulate_d_x) {
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) d_x[c] += inverse * d_y[c] * weight[c] - x[c] * pull;
        } else {
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) d_x[c] = inverse * d_y[c] * weight[c] - x[c] * pull;
        }
      });
    });
  });
}

}  // namespace longspan
