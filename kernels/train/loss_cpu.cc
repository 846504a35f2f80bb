// Linear cross entropy, forward and backward in one pass over chunks of tokens: per chunk the logits, in place their
// gradient (softmax - one-hot) * scale, then two products. Scratch is one chunk's logits, [chunk,X].
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/blocks_cpu.h"
#include "kernels/matmul/matmul_cpu.h"
#include "kernels/train/check.h"
#include "kernels/train/cpu.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

// The loss of one token; with `scale` its logits become their gradient.
template <typename T>
T TokenLoss(T* logits, int64_t vocabulary, int32_t target, const double* scale) {
  if (target < 0) {
    if (scale != nullptr) std::fill_n(logits, vocabulary, T(0));
    return 0;
  }
  T largest = logits[0];
#pragma omp simd reduction(max : largest)
  for (int64_t x = 1; x < vocabulary; ++x) largest = std::max(largest, logits[x]);
  const T hit = logits[target] - largest;
  for (int64_t x = 0; x < vocabulary; ++x) logits[x] = std::exp(logits[x] - largest);
  const T sum = LaneSum<T>(vocabulary, [logits](int64_t x) { return logits[x]; });
  if (scale != nullptr) {
    const T factor = static_cast<T>(*scale) / sum;
#pragma omp simd
    for (int64_t x = 0; x < vocabulary; ++x) logits[x] *= factor;
    logits[target] -= static_cast<T>(*scale);
  }
  return std::log(sum) - hit;
}

template <typename T>
void Run(const LinearCrossEntropyArgs& args) {
  const int64_t tokens = args.x.dim(0), width = args.x.dim(1), vocabulary = args.weight.dim(0);
  const int32_t* const targets = args.targets.As<int32_t>();
  const double* const scale = args.d_x ? args.scale.As<double>() : nullptr;
  static thread_local std::vector<T> scratch;
  scratch.resize(std::min(args.chunk, tokens) * vocabulary);
  T* const logits = scratch.data();
  for (int64_t begin = 0; begin < tokens; begin += args.chunk) {
    const int64_t rows = std::min(args.chunk, tokens - begin);
    const T* const x = args.x.As<T>() + begin * width;
    MatMulCpu<T>(
        {.a = x, .b = args.weight.As<T>(), .c = logits, .m = rows, .n = vocabulary, .k = width, .transpose_b = true});
    T* const loss = args.loss.As<T>() + begin;
#pragma omp parallel for if (rows * vocabulary > kBlockElements)
    for (int64_t t = 0; t < rows; ++t) {
      loss[t] = TokenLoss(logits + t * vocabulary, vocabulary, targets[begin + t], scale);
    }
    if (scale == nullptr) continue;
    T* const d_x = args.d_x.As<T>() + begin * width;
    MatMulCpu<T>({.a = logits, .b = args.weight.As<T>(), .c = d_x, .m = rows, .n = width, .k = vocabulary});
    if (args.d_weight) {
      MatMulCpu<T>({.a = logits,
                    .b = x,
                    .c = args.d_weight.As<T>(),
                    .m = vocabulary,
                    .n = width,
                    .k = rows,
                    .transpose_a = true,
                    .accumulate = true});
    }
  }
}

}  // namespace

void CpuTrain::LinearCrossEntropy(Stream& stream, const LinearCrossEntropyArgs& args) {
  constexpr const char* kName = "train.loss";
  const DType dtype = CheckLinearCrossEntropy(kName, args);
  const int64_t tokens = args.x.dim(0), vocabulary = args.weight.dim(0);
  Launch(stream, kName, LinearCrossEntropyCost(args), [args, dtype, tokens, vocabulary] {
    for (int64_t t = 0; t < tokens; ++t) {
      const int32_t target = args.targets.As<int32_t>()[t];
      if (target < -1 || target >= vocabulary) {
        Fail(ExitCode::kData, "target {} at position {} of this rank's tokens: expected -1 or a value in [0,{})",
             target, t, vocabulary);
      }
    }
    DispatchFloat(dtype, [&]<typename T>() { Run<T>(args); });
  });
}

std::unique_ptr<TrainOps> MakeCpuTrain() { return std::make_unique<CpuTrain>(); }

}  // namespace longspan
