// The three branches on the GPU are one computation, as on the CPU (kernels/attention/cpu/branch.h): softmax attention
// over the key rows that a query sees. What the kernels share is here: their parameters, who sees what.
//
// Key tiles lie at absolute positions and a tile in which a query sees nothing leaves no trace in its sums: what a
// query gets does not depend on the queries beside it.
#pragma once

#include <cstdint>

#include "kernels/attention/gpu/pages.cuh"
#include "kernels/attention/gpu/queries.cuh"
#include "kernels/attention/ops.h"

namespace longspan {

constexpr int kMaxWidthGpu = 256;  // of keys and values

// What a query sees: with window > 0 the last `window` tokens of its document, else the compressed tokens that end
// before it, else (selected) the tokens of its chosen blocks.
struct SightGpu {
  const int32_t* doc_start = nullptr;  // or null
  int window = 0;
  int block = 0, stride = 0;          // of the compression
  const int32_t* selected = nullptr;  // [T,G,choices]
  int choices = 0, select_block = 0;
};

struct BranchParams {
  const void* q;         // [T,H,K]
  const void* k;         // [R,G,K]
  const void* v;         // [R,G,V]
  void* o;               // [T,H,V]
  float* lse;            // [T,H]
  const int32_t* table;  // pages of k and v
  int page_rows;
  int heads, groups, key_width, value_width;
  float scale;
  SightGpu sight;
  QueryTilesGpu queries;

  __host__ __device__ int group_heads() const { return heads / groups; }
};

// Each overwrites o and lse. K and V up to kMaxWidthGpu, multiples of 8 for the two in BF16.
void RangeForwardBf16(cudaStream_t stream, const char* operation, const BranchArgs& args, const SightGpu& sight);
void SelectedForwardBf16(cudaStream_t stream, const char* operation, const BranchArgs& args, const SightGpu& sight);
void BranchForwardF32(cudaStream_t stream, const char* operation, const BranchArgs& args, const SightGpu& sight);

// Refuses, naming `operation`, what the kernels do not hold: more than 64 heads a group, 2^31 rows, widths.
void CheckBranchLimits(const char* operation, DType dtype, const BranchArgs& args);
SightGpu SightOf(const CompressedArgs& args);
SightGpu SightOf(const SelectedArgs& args);
SightGpu SightOf(const WindowArgs& args);

BranchParams BranchParamsOf(const char* operation, const BranchArgs& args, const SightGpu& sight, int tile_queries);

// Calls f.operator()<KW, VW>() with the smallest widths that hold K and V: narrower rows are padded with zeros.
template <typename F>
void DispatchWidths(int64_t key_width, int64_t value_width, const F& f) {
  if (key_width <= 64 && value_width <= 64) {
    f.template operator()<64, 64>();
  } else if (key_width <= 128 && value_width <= 128) {
    f.template operator()<128, 128>();
  } else if (key_width <= 192 && value_width <= 128) {
    f.template operator()<192, 128>();
  } else {
    f.template operator()<256, 256>();
  }
}

// The one span of the window and compressed branches. Both ends never fall as the position grows.
// `start` is where the query's document begins.
__device__ inline SpanGpu SeenSpan(const SightGpu& sight, int position, int start) {
  if (sight.window > 0) return {max(start, position < sight.window ? 0 : position - sight.window + 1), position + 1};
  const int lead = sight.block / sight.stride - 1;
  const int end = position + 1 < sight.block ? 0 : (position + 1 - sight.block) / sight.stride + 1;
  return {(start + sight.stride - 1) / sight.stride + lead, end + lead};
}

__device__ inline int DocStart(const SightGpu& sight, int position) {
  return sight.doc_start == nullptr ? 0 : sight.doc_start[position];
}

__device__ inline SpanGpu SeenSpan(const SightGpu& sight, int position) {
  return SeenSpan(sight, position, DocStart(sight, position));
}

// Chosen blocks of a query: the entries before the first -1. Called by whole warps.
__device__ inline int CountChosen(const int32_t* chosen, int choices) {
  for (int first = 0; first < choices; first += 32) {
    const int i = first + threadIdx.x % 32;
    const unsigned none = __ballot_sync(~0u, i >= choices || chosen[i] < 0);
    if (none != 0) return first + __ffs(none) - 1;
  }
  return choices;
}

// Span i of those that a query sees, empty after the last one.
__device__ inline SpanGpu SpanAt(const BranchParams& params, const QueryTileGpu& query, int group, int i) {
  const SightGpu& sight = params.sight;
  if (sight.selected == nullptr) return i == 0 ? SeenSpan(sight, query.position) : SpanGpu{0, 0};
  if (i >= sight.choices) return {0, 0};
  const int block = sight.selected[(static_cast<int64_t>(query.row) * params.groups + group) * sight.choices + i];
  if (block < 0) return {0, 0};
  return {block * sight.select_block, min((block + 1) * sight.select_block, query.position + 1)};
}

}  // namespace longspan
