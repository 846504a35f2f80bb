// What the kernels of a step's attention share: its sizes, where the splits' partial results lie, how many splits a
// query has.
//
// A branch's keys are cut in splits: the compressed branch's at multiples of `split_rows` rows, the window's from its
// first token on, the selected branch's after every `split_blocks` blocks of the list. A query's splits are numbered
// compressed, window, selected; each has room for its partial results whether or not the query is long enough for it.
#pragma once

#include "kernels/attention/decode/rows.cuh"
#include "kernels/attention/decode/split.cuh"

namespace longspan {

struct AttendParams {
  StepView step;
  int first_query;  // of the step's, that this pass has
  const void *q, *gates;
  void* out;
  int32_t* selected;        // [T,G,N]
  const void *k[3], *v[3];  // compressed, selected, window: the order of branches
  int ring_pages[3];
  int heads, groups, key_width, value_width;
  float scale_log2;
  int block, stride, lead, cells, block_cells, select_block, select, init, local, window;

  int split_rows, split_blocks;
  int compressed_splits, window_splits, selected_splits;  // that there is room for
  int sum_blocks;                                         // selection blocks that there is room for
  float* o;                                               // [pass,H,splits,V]
  float2* stats;                                          // [pass,H,splits]
  // Of the compressed splits' weights, heads padded: for each block the sum of its rows in the split that it begins in;
  // for each split the sum of its first rows, which belong to the last block of the split before.
  float* block_sums;  // [pass,G,sum_blocks,head_room]
  float* first_sums;  // [pass,G,compressed_splits,head_room]

  __host__ __device__ int group_heads() const { return heads / groups; }
  __host__ __device__ int parts() const { return (group_heads() + kSplitHeads - 1) / kSplitHeads; }
  __host__ __device__ int head_room() const { return parts() * kSplitHeads; }
  __host__ __device__ int splits() const { return compressed_splits + window_splits + selected_splits; }

  // The end of the compressed rows that a query at `position` sees; they begin at `lead`.
  __device__ int RowsEnd(int position) const {
    return (position + 1 < block ? 0 : (position + 1 - block) / stride + 1) + lead;
  }
  __device__ int CompressedSplits(int position) const {
    const int end = RowsEnd(position);
    return end > lead ? (end + split_rows - 1) / split_rows : 0;
  }
  __device__ int WindowSplits(int position) const { return (min(position + 1, window) + kSplitKeys - 1) / kSplitKeys; }
  __device__ int SelectedSplits(int position) const {
    return (min(position / select_block + 1, select) + split_blocks - 1) / split_blocks;
  }
  // The cells that the row number i of a block's shares with it.
  __device__ float Cells(int i) const { return static_cast<float>(min(min(i + 1, cells), block_cells + lead - i)); }
};

constexpr int kMaxSplitKeyWidth = 192, kMaxSplitValueWidth = 128;

// Of shared memory.
int64_t SummarizeBytes(const DecodeSizes& sizes);
int64_t CombineBytes(const AttendParams& params);
int64_t SplitBytes(DType dtype, int64_t key_width, int64_t value_width);

void LaunchAttend(cudaStream_t stream, DType dtype, const AttendParams& params, int queries);
void LaunchCombine(cudaStream_t stream, DType dtype, const AttendParams& params, int queries);

}  // namespace longspan
