// Launchers of the branches' backward: checks, scratch, delta = sum(d_o o), then the pass for d_q and the pass for d_k
// and d_v, each only if wanted.
#include <algorithm>
#include <optional>

#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/attention.h"
#include "kernels/attention/gpu/backward.cuh"
#include "kernels/attention/gpu/selection_lists.cuh"

namespace longspan {
namespace {

constexpr int64_t kMaxKeyWidth = 192, kMaxValueWidth = 128;  // in BF16
constexpr int64_t kMinChunk = 512;                           // queries of a work item of the d_k, d_v pass
constexpr int64_t kItems = 4096;                             // work items that keep a GPU busy evenly to the end

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

// Key tiles of the window and compressed branches. Few tiles with many watchers are cut into several items.
KeyWork RangeWork(const BackwardParams& params, int64_t queries) {
  KeyWork work;
  work.tiles = static_cast<int>(CeilDiv(params.key_rows, kBackwardKeys));
  const int64_t watchers =
      params.sight.window > 0 ? std::min<int64_t>(queries, int64_t{params.sight.window} + kBackwardKeys - 1) : queries;
  const int64_t chunks = std::max<int64_t>(
      1, std::min(watchers / kMinChunk, kItems / std::max<int64_t>(1, int64_t{work.tiles} * params.groups)));
  work.chunk = static_cast<int>(std::max<int64_t>(1, CeilDiv(watchers, chunks)));
  work.chunks = static_cast<int>(chunks);
  return work;
}

int64_t PartBytes(const BackwardParams& params) {
  int64_t bytes = 0;
  DispatchBackwardWidths(params, [&]<int KW, int VW>() { bytes = int64_t{kBackwardKeys} * (KW + VW) * sizeof(float); });
  return bytes;
}

void Backward(Stream& stream, const char* operation, double pairs, const BranchArgs& args,
              const BranchGradient& gradient, const SightGpu& sight, GpuScratch& scratch) {
  const DType dtype = CheckBranchGradient(OnGpu(operation), args, gradient);
  CheckBranchLimits(operation, dtype, args);
  const bool bf16 = dtype == DType::kBf16;
  LS_CHECK(!bf16 || (args.q.dim(2) <= kMaxKeyWidth && args.kv.v.dim(2) <= kMaxValueWidth),
           "{}: k, v: expected widths of at most {} and {} in BF16 on a GPU, found {} and {}", operation, kMaxKeyWidth,
           kMaxValueWidth, args.q.dim(2), args.kv.v.dim(2));
  const int64_t tokens = args.q.dim(0), rows = tokens * args.q.dim(1);
  LS_CHECK(rows < INT32_MAX, "{}: q: expected fewer than 2^31 rows of heads on a GPU, found {}", operation, rows);

  BackwardParams params;
  static_cast<BranchParams&>(params) = BranchParamsOf(operation, args, sight, 1);
  params.d_o = gradient.d_o.data;
  params.d_q = GpuData<float>(gradient.d_q);
  params.d_k = GpuData<float>(gradient.d_k);
  params.d_v = GpuData<float>(gradient.d_v);
  params.key_rows = static_cast<int>(args.kv.pages.table.size() * args.kv.pages.page_rows);
  params.doc_tokens = args.doc_start ? static_cast<int>(args.doc_start.dim(0)) : 0;
  if (params.queries.tiles() == 0 || params.key_rows == 0) return;
  const bool keys_wanted = params.d_k != nullptr || params.d_v != nullptr, listed = sight.selected != nullptr;

  ScratchCut cut;
  const int64_t delta_at = cut.Add(rows * sizeof(float)), part_bytes = bf16 ? PartBytes(params) : 0;
  std::optional<SelectionListsPlan> lists;
  KeyWork work = RangeWork(params, params.queries.tiles());
  int64_t partial_at = 0;
  if (keys_wanted && listed) {
    lists.emplace(params, tokens, part_bytes, &cut);
  } else if (keys_wanted && bf16 && work.chunks > 1) {
    partial_at = cut.Add(int64_t{work.tiles} * work.chunks * params.groups * part_bytes);
  }
  unsigned char* const memory = static_cast<unsigned char*>(scratch.Get(stream, cut.bytes));
  float* const delta = reinterpret_cast<float*>(memory + delta_at);
  params.delta = delta;
  if (partial_at > 0) work.partial = reinterpret_cast<float*>(memory + partial_at);

  LaunchGpu(stream, operation, BranchBackwardCost(args, gradient, pairs), [&](cudaStream_t cuda_stream) {
    DispatchFloatGpu(dtype, [&]<typename T>() {
      DeltaKernel<<<GridFor(rows, kDeltaThreads / 32), kDeltaThreads, 0, cuda_stream>>>(
          static_cast<const T*>(params.d_o), static_cast<const T*>(params.o), rows, params.value_width, delta);
    });
    if (lists) work = lists->Build(cuda_stream, operation, params, memory);
    if (!bf16) {
      BackwardF32(cuda_stream, params, work.lists);
      return;
    }
    if (params.d_q != nullptr) {
      (listed ? SelectedBackwardQBf16 : RangeBackwardQBf16)(cuda_stream, operation, params);
    }
    if (keys_wanted) BackwardKeysBf16(cuda_stream, operation, params, work);
  });
}

}  // namespace

void GpuAttention::CompressedBackward(Stream& stream, const CompressedArgs& args, const BranchGradient& gradient) {
  const char* const name = "attention.compressed_backward";
  CheckBlockAndStride(name, args.block, args.stride);
  Backward(stream, name, CompressedPairs(args.segments, args.block, args.stride), args, gradient, SightOf(args),
           branch_scratch_);
}

void GpuAttention::SelectedBackward(Stream& stream, const SelectedArgs& args, const BranchGradient& gradient) {
  const char* const name = "attention.selected_backward";
  CheckBranchGradient(OnGpu(name), args, gradient);
  CheckSelected(OnGpu(name), args);
  Backward(stream, name, SelectedPairs(args.segments, args.select_block, args.selected.dim(2)), args, gradient,
           SightOf(args), branch_scratch_);
}

void GpuAttention::WindowBackward(Stream& stream, const WindowArgs& args, const BranchGradient& gradient) {
  const char* const name = "attention.window_backward";
  LS_CHECK(args.window > 0, "{}: window: expected 1 or more, found {}", name, args.window);
  Backward(stream, name, WindowPairs(args.segments, args.window), args, gradient, SightOf(args), branch_scratch_);
}

}  // namespace longspan
