// Backward of the three branches on the GPU, shared by its passes. P is recomputed from the saved lse, as on the CPU
// (kernels/attention/cpu/branch_backward.cc):
//   P = exp(q k - lse)   dP = d_o v   dS = P (dP - delta)   d_q += dS k   d_k += dS q   d_v += P d_o
//
//   branch_backward            the launchers, delta = sum(d_o o)
//   selection_lists            who chose a block
//   branch_backward_f32        all passes in F32, plain
//   sm80/range_backward_q      d_q of the window and compressed branches (BF16)
//   sm80/selected_backward_q   d_q of the selected branch (BF16)
//   sm80/backward_kv           d_k, d_v of any branch (BF16): a block owns a tile of keys and walks over its watchers
//   sm90/                      the same on Hopper
//
// Where several blocks add to the same memory they do so in a fixed order: same bits on every run.
#pragma once

#include "kernels/attention/gpu/sight.cuh"

namespace longspan {

template <typename Sight>
struct BackwardParams : BranchParams<Sight> {
  const void* d_o;     // [T,H,V]
  const float* delta;  // [T,H]
  float* d_q;          // [T,H,K] or null
  float* d_k;          // [R,G,K] or null
  float* d_v;          // [R,G,V] or null
  bool overwrite_q;    // d_q's rows of the segments, those of queries that see nothing, too
  int tokens;          // T
  int key_rows;        // rows of the sequence that the page table speaks of

  bool keys_wanted() const { return d_k != nullptr || d_v != nullptr; }
};

// Who chose a block, of the selected branch. List number group * blocks + block holds local rows, ascending.
struct SelectionLists {
  const int32_t* rows = nullptr;   // all lists, one after the other
  const int32_t* begin = nullptr;  // [lists+1]
  const int32_t* ends = nullptr;   // [stretches of kStretch rows, lists]: entries up to and with a stretch's rows
  int blocks = 0;                  // of the sequence
};
constexpr int kStretch = 256;

// ---- Watchers: the queries that see any of some key rows, by number -------------------------------------------------

struct Watcher {
  int row;       // local
  SpanGpu seen;  // of the key rows
};

// Of the window and compressed branches: those at a range of positions.
struct RangeWatchers {
  SpanGpu positions;

  __device__ int Count(const BackwardParams<RangeSight>& params) const {
    return CountQueries(params.queries, positions);
  }
  // Reads what `At` needs to know of a watcher: apart, because it takes a while.
  __device__ int Ask(const BackwardParams<RangeSight>& params, int number) const {
    return params.sight.DocStart(QueryAt(params.queries, positions, number).position);
  }
  __device__ Watcher At(const BackwardParams<RangeSight>& params, int number, int answer) const {
    const QueryGpu query = QueryAt(params.queries, positions, number);
    return {query.row, params.sight.Seen(query.position, answer)};
  }
};

// Of the selected branch: those that chose the rows' block.
struct ListedWatchers {
  const int32_t* list;
  int count;
  SpanGpu keys;

  __device__ int Count(const BackwardParams<SelectedSight>&) const { return count; }
  __device__ int Ask(const BackwardParams<SelectedSight>&, int number) const { return list[number]; }
  __device__ Watcher At(const BackwardParams<SelectedSight>& params, int, int answer) const {
    return {answer, {keys.begin, min(keys.end, PositionOf(params.queries, answer) + 1)}};
  }
};

// Of key rows [keys.begin, keys.end), not empty.
__device__ inline RangeWatchers WatchersOf(const BackwardParams<RangeSight>& params, const SelectionLists&, int,
                                           SpanGpu keys) {
  const RangeSight& sight = params.sight;
  if (keys.end <= sight.lead) return {{0, 0}};
  // Where the last row begins: whoever sees it has it in the window and a document that begins there or before.
  const int last_start = (keys.end - 1 - sight.lead) * sight.stride;
  SpanGpu positions = {max(keys.begin - sight.lead, 0) * sight.stride + sight.block - 1,
                       static_cast<int>(min(int64_t{INT32_MAX}, int64_t{last_start} + sight.window))};
  if (sight.doc_start == nullptr) return {positions};
  int low = 0, high = sight.doc_tokens;  // the first token whose document begins after last_start
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (sight.doc_start[middle] > last_start) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  positions.end = min(positions.end, low);
  return {positions};
}

// The rows are of one block.
__device__ inline ListedWatchers WatchersOf(const BackwardParams<SelectedSight>& params, const SelectionLists& lists,
                                            int group, SpanGpu keys) {
  const int number = group * lists.blocks + keys.begin / params.sight.block, begin = lists.begin[number];
  return {lists.rows + begin, lists.begin[number + 1] - begin, keys};
}

}  // namespace longspan
