// Launchers of the branches' backward: checks, scratch, delta = sum(d_o o), then the kernels that serve the call
// (variants.h). They know nothing of a gate: with weights P' = gate * P = exp(q k - (lse - log(gate))) the backward of
// gate * o is
//   d_v += P' d_o   dS = P' (d_o v - sum(d_o o))
// so that lse is another, and delta the gate's gradient.
#include <algorithm>
#include <initializer_list>
#include <vector>

#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/attention.h"
#include "kernels/attention/gpu/backward.cuh"
#include "kernels/attention/gpu/variants.h"

namespace longspan {
namespace {

constexpr int kDeltaThreads = 128;

// delta[row] = sum over channels of d_o * o, a warp a row.
template <typename T>
__global__ void __launch_bounds__(kDeltaThreads)
    DeltaKernel(const T* d_o, const T* o, int64_t rows, int width, float* delta) {
  const int lane = threadIdx.x % 32;
  const int64_t row = GridThread() / 32;
  if (row >= rows) return;
  float sum = 0;
  if constexpr (std::is_same_v<T, Bf16>) {
    for (int c = lane * kVector<T>; c < width; c += 32 * kVector<T>) {
      float x[kVector<T>], y[kVector<T>];
      LoadVector(d_o + row * width + c, x);
      LoadVector(o + row * width + c, y);
#pragma unroll
      for (int i = 0; i < kVector<T>; ++i) sum += x[i] * y[i];
    }
  } else {
    for (int c = lane; c < width; c += 32) sum += d_o[row * width + c] * o[row * width + c];
  }
  sum = WarpSum(sum);
  if (lane == 0) delta[row] = sum;
}

// What a branch's backward takes for lse and delta, [rows], of its gate.
template <typename T>
__global__ void __launch_bounds__(kDeltaThreads)
    GateKernel(const T* gates, const float* d_gates, int branch, const float* lse, int64_t rows, float* gated_lse,
               float* delta) {
  const int64_t row = GridThread();
  if (row >= rows) return;
  // A row that sees nothing stays one whatever its gate.
  gated_lse[row] = lse[row] == -INFINITY ? lse[row] : lse[row] - logf(ToFloat(gates[row * 3 + branch]));
  delta[row] = d_gates[row * 3 + branch];
}

// The passes that `kinds` name, one after another, in the same scratch.
template <typename Sight>
void Backward(Stream& stream, const char* operation, double pairs, const BranchArgs& args,
              const BranchGradient& gradient, const Sight& sight, int left_processors,
              std::initializer_list<ScratchKernel<BackwardParams<Sight>> AttentionKernels::*> kinds,
              GpuScratch& scratch) {
  const DType dtype = CheckBranchGradient(OnGpu(operation), args, gradient);
  CheckBranchLimits(operation, dtype, args);
  const int64_t tokens = args.q.dim(0), rows = tokens * args.q.dim(1);
  LS_CHECK(rows < INT32_MAX, "{}: q: expected fewer than 2^31 rows of heads on a GPU, found {}", operation, rows);

  BackwardParams<Sight> params;
  static_cast<BranchParams<Sight>&>(params) = BranchParamsOf(operation, dtype, args, sight, left_processors);
  params.d_o = gradient.d_o.data;
  params.delta = nullptr;
  params.d_q = GpuData<float>(gradient.d_q);
  params.d_k = GpuData<float>(gradient.d_k);
  params.d_v = GpuData<float>(gradient.d_v);
  params.overwrite_q = false;
  params.tokens = static_cast<int>(tokens);
  params.key_rows = static_cast<int>(args.kv.pages.table.size() * args.kv.pages.page_rows);
  std::vector<ScratchKernel<BackwardParams<Sight>>> kernels;
  for (const auto kind : kinds) kernels.push_back(KernelFor(stream, operation, kind, params));
  if (params.queries.tiles() == 0) return;
  const bool overwrite = gradient.overwrite_q && gradient.d_q;
  const auto zero = [&](cudaStream_t cuda_stream) {
    CudaCheck(cudaMemsetAsync(params.d_q, 0, gradient.d_q.bytes(), cuda_stream), operation);
  };
  if (params.key_rows == 0) {
    if (overwrite) LaunchGpu(stream, operation, {0, BytesOf({gradient.d_q})}, zero);
    return;
  }
  const auto& of_queries = kernels.front();
  params.overwrite_q = overwrite && of_queries.overwrites != nullptr && of_queries.overwrites(params);

  int64_t rest = 0;
  for (const auto& kernel : kernels) rest = std::max(rest, kernel.scratch_bytes(params));
  ScratchCut cut;
  const BranchGate& gate = gradient.gate;
  const int64_t delta_at = cut.Add(rows * sizeof(float)), lse_at = cut.Add(gate.gates ? rows * sizeof(float) : 0),
                rest_at = cut.Add(rest);
  unsigned char* const memory = static_cast<unsigned char*>(scratch.Get(stream, cut.bytes));
  float* const delta = reinterpret_cast<float*>(memory + delta_at);
  params.delta = delta;
  const float* const lse = params.lse;
  if (gate.gates) params.lse = reinterpret_cast<float*>(memory + lse_at);

  LaunchGpu(stream, operation, BranchBackwardCost(args, gradient, pairs), [&](cudaStream_t cuda_stream) {
    DispatchFloatGpu(dtype, [&]<typename T>() {
      if (gate.gates) {
        GateKernel<<<GridFor(rows, kDeltaThreads), kDeltaThreads, 0, cuda_stream>>>(
            GpuData<const T>(gate.gates), GpuData<const float>(gate.d_gates), gate.branch, lse, rows, params.lse,
            delta);
      } else {
        DeltaKernel<<<GridFor(rows, kDeltaThreads / 32), kDeltaThreads, 0, cuda_stream>>>(
            static_cast<const T*>(params.d_o), static_cast<const T*>(params.o), rows, params.value_width, delta);
      }
    });
    if (overwrite && !params.overwrite_q) zero(cuda_stream);
    for (const auto& kernel : kernels) kernel.launch(cuda_stream, operation, params, memory + rest_at);
  });
}

}  // namespace

void GpuAttention::CompressedBackward(Stream& stream, const CompressedArgs& args, const BranchGradient& gradient) {
  const char* const name = "attention.compressed_backward";
  CheckBlockAndStride(name, args.block, args.stride);
  Backward(stream, name, CompressedPairs(args.segments, args.block, args.stride), args, gradient, SightOf(args),
           left_processors_, {&AttentionKernels::range_backward}, branch_scratch_);
}

void GpuAttention::SelectedBackward(Stream& stream, const SelectedArgs& args, const BranchGradient& gradient) {
  const char* const name = "attention.selected_backward";
  CheckBranchGradient(OnGpu(name), args, gradient);
  CheckSelected(OnGpu(name), args);
  Backward(stream, name, SelectedPairs(args.segments, args.select_block, args.selected.dim(2)), args, gradient,
           SightOf(args), left_processors_,
           {&AttentionKernels::selected_backward_q, &AttentionKernels::selected_backward_keys}, branch_scratch_);
}

void GpuAttention::WindowBackward(Stream& stream, const WindowArgs& args, const BranchGradient& gradient) {
  const char* const name = "attention.window_backward";
  LS_CHECK(args.window > 0, "{}: window: expected 1 or more, found {}", name, args.window);
  Backward(stream, name, WindowPairs(args.segments, args.window), args, gradient, SightOf(args), left_processors_,
           {&AttentionKernels::range_backward}, branch_scratch_);
}

}  // namespace longspan
