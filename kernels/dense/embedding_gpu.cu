// Embedding: rows of the table by token; the backward adds the rows of a token in ascending order
// (kernels/rows/add_in_order_gpu.h).
#include "kernels/base/gpu_common.cuh"
#include "kernels/dense/check.h"
#include "kernels/dense/gpu.h"
#include "kernels/rows/add_in_order_gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 128;

// A block copies a row; a token outside the vocabulary gives NaN.
template <typename T>
__global__ void EmbeddingKernel(const int32_t* tokens, const T* weight, T* y, int64_t width, int64_t vocabulary,
                                GpuFaults* faults) {
  const int64_t row = blockIdx.x;
  const int32_t token = tokens[row];
  const bool good = token >= 0 && token < vocabulary;
  if (!good && threadIdx.x == 0) ReportFault(faults, GpuFault::kToken, row, token, vocabulary);
  for (int64_t c = threadIdx.x; c < width; c += blockDim.x) {
    y[row * width + c] = good ? weight[token * width + c] : FromFloat<T>(NAN);
  }
}

}  // namespace

void GpuDense::Embedding(Stream& stream, const EmbeddingArgs& args) {
  const Operation operation = OnGpu("dense.embedding");
  const DType dtype = CheckEmbedding(operation, args);
  const int64_t tokens = args.tokens.size(), width = args.weight.dim(1);
  LaunchGpu(stream, operation.name, EmbeddingCost(args), [&](cudaStream_t cuda) {
    if (args.y.size() == 0) return;
    DispatchFloatGpu(dtype, [&]<typename T>() {
      EmbeddingKernel<<<GridFor(tokens, 1), kThreads, 0, cuda>>>(GpuData<int32_t>(args.tokens), GpuData<T>(args.weight),
                                                                 GpuData<T>(args.y), width, args.weight.dim(0),
                                                                 StreamFaults(stream));
    });
  });
}

void GpuDense::EmbeddingBackward(Stream& stream, const EmbeddingArgs& args, const EmbeddingGradient& gradient) {
  const Operation operation = OnGpu("dense.embedding_backward");
  CheckEmbeddingGradient(operation, args, gradient);
  LaunchGpu(stream, operation.name, EmbeddingBackwardCost(gradient), [&](cudaStream_t) {
    AddRowsInOrder(stream, embedding_scratch_, gradient.d_y, args.tokens, gradient.d_weight, gradient.d_weight.dim(0),
                   gradient.d_weight.dim(1), GpuFault::kToken);
  });
}

}  // namespace longspan
