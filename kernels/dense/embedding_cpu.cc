#include <algorithm>

#include "kernels/base/blocks_cpu.h"
#include "kernels/dense/check.h"
#include "kernels/dense/cpu.h"
#include "kernels/rows/add_in_order_cpu.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

void CheckTokens(const Tensor& tokens, int64_t vocabulary) {
  for (int64_t t = 0; t < tokens.size(); ++t) {
    const int32_t token = tokens.As<int32_t>()[t];
    if (token < 0 || token >= vocabulary) {
      Fail(ExitCode::kData, "token {} at position {} of this rank's tokens: expected a value in [0,{}), the vocabulary",
           token, t, vocabulary);
    }
  }
}

}  // namespace

void CpuDense::Embedding(Stream& stream, const EmbeddingArgs& args) {
  constexpr const char* kName = "dense.embedding";
  const DType dtype = CheckEmbedding(kName, args);
  const int64_t tokens = args.tokens.size(), width = args.weight.dim(1);
  Launch(stream, kName, EmbeddingCost(args), [args, dtype, tokens, width] {
    CheckTokens(args.tokens, args.weight.dim(0));
    DispatchFloat(dtype, [&]<typename T>() {
      const int32_t* const token = args.tokens.As<int32_t>();
      const T* const weight = args.weight.As<T>();
      T* const y = args.y.As<T>();
#pragma omp parallel for if (tokens * width > kBlockElements)
      for (int64_t t = 0; t < tokens; ++t) std::copy_n(weight + token[t] * width, width, y + t * width);
    });
  });
}

void CpuDense::EmbeddingBackward(Stream& stream, const EmbeddingArgs& args, const EmbeddingGradient& gradient) {
  constexpr const char* kName = "dense.embedding_backward";
  const DType dtype = CheckEmbeddingGradient(kName, args, gradient);
  const int64_t tokens = args.tokens.size(), width = gradient.d_weight.dim(1);
  Launch(stream, kName, EmbeddingBackwardCost(gradient), [args, gradient, dtype, tokens, width] {
    CheckTokens(args.tokens, gradient.d_weight.dim(0));
    DispatchFloat(dtype, [&]<typename T>() {
      AddRowsByIndex(gradient.d_y.As<T>(), args.tokens.As<int32_t>(), gradient.d_weight.As<T>(), tokens, width);
    });
  });
}

}  // namespace longspan
