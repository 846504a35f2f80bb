// Selection on the GPU: overwrites `selected` (and `scores`). Checks, the kernel that serves the call (variants.h), and
// the plain one.
#include <math_constants.h>

#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/attention.h"
#include "kernels/attention/gpu/plain.cuh"
#include "kernels/attention/gpu/select.cuh"
#include "kernels/attention/gpu/variants.h"

namespace longspan {
namespace {

// Any type and width, without tensor cores: a lane takes one row. For checking.
template <typename T>
struct PlainScores {
  static int64_t SharedBytes(int) { return 0; }

  __device__ static void Prepare(const SelectParams&, const QueryTileGpu&, int, uint4*) {}

  __device__ __forceinline__ static void Step(const StepArgs& args, const uint4*) {
    const SelectParams& p = args.params;
    const int lane = threadIdx.x % 32, row = args.row + lane, group_heads = p.group_heads();
    const RowFinder finder(p.table, p.page_rows, args.row, kWarpRows);
    const int64_t place = row >= args.seen.begin && row < args.seen.end ? finder.at(lane) : -1;
    const bool there = place >= 0;
    const T* const key = static_cast<const T*>(p.k) + ((there ? place : 0) * p.groups + args.group) * p.key_width;
    float sum[kSelectQueries] = {};
    for (int head = 0; head < group_heads; ++head) {
      const T* query[kSelectQueries];
      float score[kSelectQueries] = {};
      int64_t of[kSelectQueries];
#pragma unroll
      for (int i = 0; i < kSelectQueries; ++i) {
        of[i] = int64_t{args.tile.row + min(i, args.tile.count - 1)} * p.heads + args.group * group_heads + head;
        query[i] = static_cast<const T*>(p.q) + of[i] * p.key_width;
      }
      for (int channel = 0; channel < p.key_width; ++channel) {
        const float x = there ? ToFloat(key[channel]) : 0.0f;
#pragma unroll
        for (int i = 0; i < kSelectQueries; ++i) score[i] = fmaf(x, ToFloat(query[i][channel]), score[i]);
      }
#pragma unroll
      for (int i = 0; i < kSelectQueries; ++i) {
        sum[i] += exp2f(fmaf(score[i], p.scale_log2, -p.lse[of[i]] * CUDART_L2E_F));
      }
    }
#pragma unroll
    for (int i = 0; i < kSelectQueries; ++i) {
      const SpanGpu span = args.sight.seen[i];
      args.ring[i * kRingStride + lane] = row >= span.begin && row < span.end ? sum[i] : 0.0f;
    }
  }
};

}  // namespace

void SelectPlain(cudaStream_t stream, const char* operation, const SelectParams& params) {
  if (params.dtype == DType::kBf16) {
    LaunchSelect<PlainScores<Bf16>>(stream, operation, params);
  } else {
    LaunchSelect<PlainScores<float>>(stream, operation, params);
  }
}

void GpuAttention::Select(Stream& stream, const SelectArgs& args) {
  const char* const name = "attention.select";
  const DType dtype = CheckSelect(OnGpu(name), args);
  const NsaConfig& nsa = args.nsa;
  LS_CHECK(nsa.select <= kMaxSelect, "{}: nsa.select: expected up to {} on gpu, found {}", name, kMaxSelect,
           nsa.select);
  LS_CHECK(nsa.select_block / nsa.stride <= kMaxBlockCells,
           "{}: nsa.select_block: expected up to {} strides on gpu, found {} and a stride of {}", name, kMaxBlockCells,
           nsa.select_block, nsa.stride);
  SelectParams params = {};
  params.dtype = dtype;
  params.q = args.q.data;
  params.k = args.k.data;
  params.table = args.pages.table.As<const int32_t>();
  params.page_rows = static_cast<int>(args.pages.page_rows);
  params.key_rows = args.k.dim(0);
  params.lse = args.lse.As<const float>();
  params.selected = args.selected.As<int32_t>();
  params.scores = args.scores ? args.scores.As<float>() : nullptr;
  params.heads = static_cast<int>(args.q.dim(1));
  params.groups = static_cast<int>(args.k.dim(1));
  params.key_width = static_cast<int>(args.q.dim(2));
  params.scale_log2 = static_cast<float>(args.scale * 1.4426950408889634);
  params.cells = static_cast<int>(nsa.block / nsa.stride);
  params.block_cells = static_cast<int>(nsa.select_block / nsa.stride);
  params.select_block = static_cast<int>(nsa.select_block);
  params.select = static_cast<int>(nsa.select);
  params.init = static_cast<int>(nsa.init);
  params.local = static_cast<int>(nsa.local);
  params.sight.doc_start = args.doc_start ? args.doc_start.As<const int32_t>() : nullptr;
  params.sight.block = static_cast<int>(nsa.block);
  params.sight.stride = static_cast<int>(nsa.stride);
  params.sight.lead = params.cells - 1;
  params.queries = CutQueriesGpu(name, args.segments, kSelectQueries);
  params.left_processors = left_processors_;
  const auto& kernel = KernelFor(stream, name, &AttentionKernels::select, params);
  LaunchGpu(stream, name, SelectCost(args), [&](cudaStream_t on) {
    if (params.queries.tiles() > 0) kernel.launch(on, name, params);
  });
}

}  // namespace longspan
