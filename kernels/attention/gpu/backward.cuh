// Backward of the three branches on the GPU, shared by its passes. P is recomputed from the saved lse, as on the CPU
// (kernels/attention/cpu/branch_backward.cc):
//   P = exp(q k - lse)   dP = d_o v   dS = P (dP - delta)   d_q += dS k   d_k += dS q   d_v += P d_o
//
//   branch_backward            the launchers, delta = sum(d_o o), the sum of partial results
//   sm80/range_backward_q      d_q of the window and compressed branches (BF16)
//   sm80/selected_backward_q   d_q of the selected branch (BF16)
//   sm80/backward_kv           d_k, d_v of any branch (BF16): a block owns a tile of keys and walks over its watchers
//   selection_lists            who chose a block
//   branch_backward_f32        both passes in F32, plain
//
// No pass adds to memory that another block adds to: same bits on every run.
#pragma once

#include "kernels/attention/gpu/sight.cuh"

namespace longspan {

constexpr int kBackwardKeys = 64;  // keys of a tile of the d_k, d_v pass

struct BackwardParams : BranchParams {
  const void* d_o;     // [T,H,V]
  const float* delta;  // [T,H]
  float* d_q;          // [T,H,K] or null
  float* d_k;          // [R,G,K] or null
  float* d_v;          // [R,G,V] or null
  int key_rows;        // rows of the sequence that the page table speaks of
  int doc_tokens;      // length of doc_start
};

// Who chose a block, of the selected branch. List number group * blocks + block holds local rows, ascending.
struct SelectionLists {
  const int32_t* rows = nullptr;   // all lists, one after the other
  const int32_t* begin = nullptr;  // [lists+1]
  int blocks = 0;                  // of the sequence
};

// The work of the d_k, d_v pass: a tile of keys and at most `chunk` of the queries that see it. Tiles with more queries
// have several items, whose sums go to `partial` and are added up in order by SumParts.
struct KeyWork {
  int chunk = 1;
  int chunks = 1;            // of a tile at most
  int tiles = 1;             // of the sequence, or of a block of the selected branch
  float* partial = nullptr;  // one [kBackwardKeys, KW+VW] (padded widths) each
  SelectionLists lists;
  // Of the selected branch: where each list's items and partial results begin.
  const int32_t* first_item = nullptr;     // [lists+1]
  const int32_t* first_partial = nullptr;  // [lists+1]
  int max_items = 0;
};

// d_q += ...; K up to 192, V up to 128.
void RangeBackwardQBf16(cudaStream_t stream, const char* operation, BackwardParams params);
void SelectedBackwardQBf16(cudaStream_t stream, const char* operation, BackwardParams params);
// d_k += ..., d_v += ..., either may be null.
void BackwardKeysBf16(cudaStream_t stream, const char* operation, const BackwardParams& params, const KeyWork& work);
// All three, any widths up to kMaxWidthGpu.
void BackwardF32(cudaStream_t stream, const BackwardParams& params, const SelectionLists& lists);

// Padded widths of the passes in BF16.
template <typename F>
void DispatchBackwardWidths(const BackwardParams& params, const F& f) {
  if (params.key_width <= 64 && params.value_width <= 64) {
    f.template operator()<64, 64>();
  } else if (params.key_width <= 128) {
    f.template operator()<128, 128>();
  } else {
    f.template operator()<192, 128>();
  }
}

// Positions [begin,end) that may see any of the key rows [first,end_row) of the window or compressed branch.
__device__ inline SpanGpu Watchers(const BackwardParams& params, int first, int end_row) {
  const SightGpu& sight = params.sight;
  SpanGpu watchers;
  int last_start;  // the last row's first token: whoever sees it has a document that begins there or before
  if (sight.window > 0) {
    watchers = {first, static_cast<int>(min(int64_t{INT32_MAX}, int64_t{end_row} - 1 + sight.window))};
    last_start = end_row - 1;
  } else {
    const int lead = sight.block / sight.stride - 1;
    if (end_row <= lead) return {0, 0};
    watchers = {max(first - lead, 0) * sight.stride + sight.block - 1, INT32_MAX};
    last_start = (end_row - 1 - lead) * sight.stride;
  }
  if (sight.doc_start == nullptr) return watchers;
  int low = 0, high = params.doc_tokens;  // the first token whose document begins after last_start
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (sight.doc_start[middle] > last_start) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  watchers.end = min(watchers.end, low);
  return watchers;
}

// Rows of the buffer, less those of the compressed branch that hold two documents: nobody sees them, so they may hold
// anything.
class SeenRowFinder {
 public:
  __device__ SeenRowFinder(const BranchParams& params, int first, int count)
      : rows_(params.table, params.page_rows, first, count), sight_(params.sight), first_(first) {}
  __device__ int64_t at(int i) const {
    if (sight_.window == 0 && sight_.doc_start != nullptr) {
      const int token = (first_ + i - (sight_.block / sight_.stride - 1)) * sight_.stride;
      if (token < 0 || sight_.doc_start[token + sight_.block - 1] > token) return -1;
    }
    return rows_.at(i);
  }

 private:
  RowFinder rows_;
  const SightGpu& sight_;
  int first_;
};

}  // namespace longspan
