// AdamW and the global norm.
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/base/blocks_cpu.h"
#include "kernels/train/check.h"
#include "kernels/train/cpu.h"
#include "runtime/rounding.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

template <typename T>
void Update(const AdamWArgs& args) {
  const T scale = static_cast<T>(*args.grad_scale.As<double>());
  if (std::isnan(scale)) return;
  const T beta1 = static_cast<T>(args.beta1), beta2 = static_cast<T>(args.beta2);
  const T rest1 = static_cast<T>(1 - args.beta1), rest2 = static_cast<T>(1 - args.beta2);
  const auto steps = static_cast<double>(args.step);
  const T correction1 = static_cast<T>(1 / (1 - std::pow(args.beta1, steps)));
  const T correction2 = static_cast<T>(1 / (1 - std::pow(args.beta2, steps)));
  const T rate = static_cast<T>(args.learning_rate), eps = static_cast<T>(args.eps);
  const T decay = static_cast<T>(args.weight_decay);
  const T* const gradient = args.gradient.As<T>();
  T* const weight = args.weight.As<T>();
  T* const m = args.m.As<T>();
  T* const v = args.v.As<T>();
  ForBlocks(args.weight.size(), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const T g = gradient[i] * scale;
      m[i] = beta1 * m[i] + rest1 * g;
      v[i] = beta2 * v[i] + rest2 * g * g;
      weight[i] -= rate * (m[i] * correction1 / (std::sqrt(v[i] * correction2) + eps) + decay * weight[i]);
    }
  });
}

// *sum += term(x[0]) + .. in F64: within a block by lanes, the blocks in their order.
template <typename Term>
void AddTerms(Stream& stream, const char* name, const Tensor& x, const Tensor& sum, const Term& term) {
  const DType dtype = CheckSum(name, x, sum);
  Launch(stream, name, SumCost(x), [x, sum, term, dtype] {
    DispatchFloat(dtype, [&]<typename T>() {
      const T* const values = x.As<T>();
      static thread_local std::vector<double> scratch;
      scratch.resize(CeilDiv(x.size(), kBlockElements));
      double* const parts = scratch.data();
      ForBlocks(x.size(), [=](int64_t begin, int64_t end) {
        parts[begin / kBlockElements] =
            LaneSum<double>(end - begin, [=](int64_t i) { return term(static_cast<double>(values[begin + i])); });
      });
      for (const double part : scratch) *sum.As<double>() += part;
    });
  });
}

}  // namespace

void CpuTrain::AdamW(Stream& stream, const AdamWArgs& args) {
  constexpr const char* kName = "train.adamw";
  const DType dtype = CheckAdamW(kName, args);
  LS_CHECK(!args.master, "{}: master: the CPU's weights are their own masters", kName);
  Launch(stream, kName, AdamWCost(args),
         [args, dtype] { DispatchFloat(dtype, [&]<typename T>() { Update<T>(args); }); });
}

void CpuTrain::AddSumOfSquares(Stream& stream, const Tensor& x, const Tensor& sum) {
  AddTerms(stream, "train.sum_of_squares", x, sum, [](double value) { return value * value; });
}

void CpuTrain::AddSum(Stream& stream, const Tensor& x, const Tensor& sum) {
  AddTerms(stream, "train.sum", x, sum, [](double value) { return value; });
}

void CpuTrain::ClipScale(Stream& stream, const ClipScaleArgs& args) {
  constexpr const char* kName = "train.clip_scale";
  CheckClipScale(kName, args);
  Launch(stream, kName, Cost{}, [args] {
    const double norm = std::sqrt(*args.sum_of_squares.As<double>());
    const double loss = args.loss ? *args.loss.As<double>() : 0;
    double& result = *args.scale.As<double>();
    if (!std::isfinite(norm) || !std::isfinite(loss) || norm > args.norm_limit || loss > args.loss_limit) {
      result = std::numeric_limits<double>::quiet_NaN();
    } else {
      result = args.max_norm > 0 && norm > args.max_norm ? args.max_norm / norm : 1;
    }
  });
}

}  // namespace longspan
