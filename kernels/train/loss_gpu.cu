// Linear cross entropy over chunks of tokens: per chunk the logits in F32, their gradient (softmax - one-hot) * scale
// in the activations' type, then two products. Chunks are large (LossChunk): small ones would read and write d_weight
// too often.
#include "kernels/base/gpu_common.cuh"
#include "kernels/train/check.h"
#include "kernels/train/gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 1024;  // so that the rows at work are read again from the cache
constexpr int kAhead = 8;       // logits that a thread reads at once

// f(x, value) for kAhead logits of a row that a thread reads at once, every kThreads-th from its own on, again and
// again; -INFINITY after the row's end.
template <typename F>
__device__ void ForLogits(const float* row, int64_t vocabulary, const F& f) {
  for (int64_t begin = threadIdx.x; begin < vocabulary; begin += kAhead * kThreads) {
    float values[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t x = begin + a * kThreads;
      values[a] = x < vocabulary ? row[x] : -INFINITY;
    }
    f(begin, values);
  }
}

// A block has a token. Its threads find maximum and sum in one reading of the logits, each over its own stride.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    LossKernel(const float* logits, const int32_t* targets, float* loss, T* d_logits, int64_t vocabulary,
               const double* scale_at, int64_t first, GpuFaults* faults) {
  const int64_t token = blockIdx.x;
  const int32_t target = targets[token];
  const float* const row = logits + token * vocabulary;
  T* const slope = d_logits ? d_logits + token * vocabulary : nullptr;
  if (target == -1) {
    if (threadIdx.x == 0) loss[token] = 0;
    for (int64_t x = threadIdx.x; slope && x < vocabulary; x += kThreads) slope[x] = FromFloat<T>(0.f);
    return;
  }
  if (target < -1 || target >= vocabulary) {
    if (threadIdx.x == 0) {
      ReportFault(faults, GpuFault::kTarget, first + token, target, vocabulary);
      loss[token] = NAN;
    }
    for (int64_t x = threadIdx.x; slope && x < vocabulary; x += kThreads) slope[x] = FromFloat<T>(NAN);
    return;
  }
  float largest = -INFINITY, sum = 0;
  ForLogits(row, vocabulary, [&](int64_t, const float(&values)[kAhead]) {
    float here = largest;
#pragma unroll
    for (int a = 0; a < kAhead; ++a) here = fmaxf(here, values[a]);
    sum *= expf(largest - here);
#pragma unroll
    for (int a = 0; a < kAhead; ++a) sum += expf(values[a] - here);
    largest = here;
  });
  const float most = BlockMax(largest);
  // A thread without logits has -inf and no sum; a NaN among the logits stays one.
  sum = BlockSum(largest == -INFINITY && sum == 0 ? 0.f : sum * expf(largest - most));
  if (threadIdx.x == 0) loss[token] = logf(sum) - (row[target] - most);
  if (!slope) return;
  const float scale = static_cast<float>(*scale_at), factor = scale / sum;
  ForLogits(row, vocabulary, [&](int64_t begin, const float(&values)[kAhead]) {
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t x = begin + a * kThreads;
      const float value = expf(values[a] - most) * factor;
      if (x < vocabulary) slope[x] = FromFloat<T>(x == target ? value - scale : value);
    }
  });
}

}  // namespace

void GpuTrain::LinearCrossEntropy(Stream& stream, const LinearCrossEntropyArgs& args) {
  const Operation operation = OnGpu("train.loss");
  const DType dtype = CheckLinearCrossEntropy(operation, args);
  const int64_t tokens = args.x.dim(0), width = args.x.dim(1), vocabulary = args.weight.dim(0);
  const int64_t chunk = LossChunk(args);
  LaunchGpu(stream, operation.name, LinearCrossEntropyCost(args), [&](cudaStream_t cuda) {
    if (tokens == 0) return;
    ScratchCut cut;
    const int64_t logits_at = cut.Add(chunk * vocabulary * 4);
    const int64_t slopes_at = cut.Add(args.d_x ? chunk * vocabulary * DTypeSize(dtype) : 0);
    char* const base = static_cast<char*>(loss_scratch_.Get(stream, cut.bytes));
    auto* const logits = reinterpret_cast<float*>(base + logits_at);
    char* const slopes = args.d_x ? base + slopes_at : nullptr;
    for (int64_t begin = 0; begin < tokens; begin += chunk) {
      const int64_t rows = std::min(chunk, tokens - begin);
      const Tensor x = args.x.Rows(begin, rows);
      matmul_.Run(stream, {.m = rows, .n = vocabulary, .k = width, .transpose_b = true, .operands = dtype}, x.data,
                  args.weight.data, logits);
      DispatchFloatGpu(dtype, [&]<typename T>() {
        LossKernel<<<static_cast<unsigned>(rows), kThreads, 0, cuda>>>(
            logits, GpuData<int32_t>(args.targets) + begin, GpuData<float>(args.loss) + begin,
            reinterpret_cast<T*>(slopes), vocabulary, GpuData<double>(args.scale), begin, StreamFaults(stream));
      });
      if (!args.d_x) continue;
      matmul_.Run(stream, {.m = rows, .n = width, .k = vocabulary, .operands = dtype, .result = dtype}, slopes,
                  args.weight.data, args.d_x.Rows(begin, rows).data);
      if (!args.d_weight) continue;
      matmul_.Run(stream,
                  {.m = vocabulary,
                   .n = width,
                   .k = rows,
                   .transpose_a = true,
                   .accumulate = true,
                   .operands = dtype,
                   .result = DType::kF32},
                  slopes, x.data, args.d_weight.data);
    }
  });
}

}  // namespace longspan
