// The three branches on the GPU are one computation, as on the CPU (kernels/attention/cpu/branch.h): softmax attention
// over the key rows that a query sees. What the kernels share is here: who sees what, and their parameters.
//
// Key tiles lie at absolute positions and a tile in which a query sees nothing leaves no trace in its sums: what a
// query gets does not depend on the queries beside it.
#pragma once

#include <climits>
#include <cstdint>
#include <string>

#include "kernels/attention/gpu/pages.cuh"
#include "kernels/attention/gpu/queries.cuh"
#include "kernels/attention/ops.h"
#include "kernels/base/gpu_common.cuh"

namespace longspan {

constexpr int kMaxWidthGpu = 256;  // of keys and values

// ---- Sights: what a query sees, in spans of key rows ---------------------------------------------------------------

// The window and the compressed branch: one span. Key row r stands for the `block` tokens from token (r - lead) *
// stride on; a query sees the rows whose tokens all lie among its document's last `window` tokens, itself included.
struct RangeSight {
  const int32_t* doc_start = nullptr;  // [doc_tokens] or null: one document
  int doc_tokens = 0;
  int window = INT32_MAX;
  int block = 1, stride = 1, lead = 0;

  __device__ int DocStart(int position) const { return doc_start == nullptr ? 0 : doc_start[position]; }

  // `start` is where the query's document begins. Both ends never fall as the position grows.
  __device__ SpanGpu Seen(int position, int start) const {
    const int first_token = max(start, position - window + 1);
    const int tokens_end = position + 1 < block ? 0 : (position + 1 - block) / stride + 1;
    return {(first_token + stride - 1) / stride + lead, tokens_end + lead};
  }
  __device__ SpanGpu Seen(int position) const { return Seen(position, DocStart(position)); }

  // By any query from position `first` on up to `last`, of which the last decides where it ends.
  __device__ SpanGpu SeenByAny(int first, int last) const { return {Seen(first).begin, Seen(last, 0).end}; }

  __device__ int spans() const { return 1; }
  __device__ SpanGpu Span(const QueryTileGpu& query, int, int, int) const { return Seen(query.position); }
};

// The selected branch: the tokens of the chosen blocks up to the query, a span a block.
struct SelectedSight {
  const int32_t* selected = nullptr;  // [T,G,choices]
  int choices = 0;
  int block = 1;  // tokens

  __device__ const int32_t* Chosen(int row, int groups, int group) const {
    return selected + (static_cast<int64_t>(row) * groups + group) * choices;
  }

  __device__ int spans() const { return choices; }
  // Span i, empty after the last one.
  __device__ SpanGpu Span(const QueryTileGpu& query, int groups, int group, int i) const {
    const int chosen = Chosen(query.row, groups, group)[i];
    if (chosen < 0) return {0, 0};
    return {chosen * block, min((chosen + 1) * block, query.position + 1)};
  }
};

RangeSight SightOf(const CompressedArgs& args);
RangeSight SightOf(const WindowArgs& args);
SelectedSight SightOf(const SelectedArgs& args);

// ---- Parameters ----------------------------------------------------------------------------------------------------

// Of a branch's kernels. The forward overwrites o and lse.
template <typename Sight>
struct BranchParams {
  DType dtype;           // of q, k, v and o
  const void* q;         // [T,H,K]
  const void* k;         // [R,G,K]
  const void* v;         // [R,G,V]
  void* o;               // [T,H,V]
  float* lse;            // [T,H]
  const int32_t* table;  // pages of k and v
  int page_rows;
  int64_t buffer_rows;  // R
  int heads, groups, key_width, value_width;
  float scale;
  Sight sight;
  QueryTilesGpu queries;  // in tiles of one; a kernel cuts them anew
  int left_processors;    // multiprocessors that blocks which stay leave to others

  __host__ __device__ int group_heads() const { return heads / groups; }
  std::string Sizes() const { return fmt::format("{}, K={}, V={}", DTypeName(dtype), key_width, value_width); }
};

// Refuses, naming `operation`, what no kernel holds: more than 64 heads a group, 2^31 rows, widths.
void CheckBranchLimits(const char* operation, DType dtype, const BranchArgs& args);

template <typename Sight>
BranchParams<Sight> BranchParamsOf(const char* operation, DType dtype, const BranchArgs& args, const Sight& sight,
                                   int left_processors) {
  BranchParams<Sight> params;
  params.dtype = dtype;
  params.q = args.q.data;
  params.k = args.kv.k.data;
  params.v = args.kv.v.data;
  params.o = args.o.data;
  params.lse = GpuData<float>(args.lse);
  params.table = GpuData<const int32_t>(args.kv.pages.table);
  params.page_rows = static_cast<int>(args.kv.pages.page_rows);
  params.buffer_rows = args.kv.k.dim(0);
  params.heads = static_cast<int>(args.q.dim(1));
  params.groups = static_cast<int>(args.kv.k.dim(1));
  params.key_width = static_cast<int>(args.q.dim(2));
  params.value_width = static_cast<int>(args.kv.v.dim(2));
  params.scale = static_cast<float>(args.scale);
  params.sight = sight;
  params.queries = CutQueriesGpu(operation, args.segments, 1);
  params.left_processors = left_processors;
  return params;
}

}  // namespace longspan
