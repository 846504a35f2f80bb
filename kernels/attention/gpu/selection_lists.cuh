// Who chose a block: the choice of the selected branch turned round, for its d_k and d_v.
#pragma once

#include "kernels/attention/gpu/backward.cuh"

namespace longspan {

// Work of a pass over tiles of keys: an item is a tile and at most `chunk` of the entries of its block's list. A list
// with more has several items, whose sums go to `partial`, to be added up in order.
struct ListedWork {
  SelectionLists lists;
  int chunk = 1;
  int tiles = 1;                           // of a block
  const int32_t* first_item = nullptr;     // [lists+1] where each list's items begin
  const int32_t* first_partial = nullptr;  // [lists+1] where each list's partial results begin, `tiles` apart
  int max_items = 0;
  float* partial = nullptr;  // part_bytes each
};

// Where the lists of a call lie in scratch, and how they are cut into work items.
class SelectionListsPlan {
 public:
  // Tiles of tile_keys keys; `part_bytes` is what an item's result takes, 0: lists are not cut.
  SelectionListsPlan(const BackwardParams<SelectedSight>& params, int64_t tile_keys, int64_t part_bytes);
  int64_t scratch_bytes() const { return cut_.bytes; }
  // Enqueues; the result's pointers lie in `scratch`. No atomics: lists are ascending whatever runs first.
  ListedWork Build(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params,
                   unsigned char* scratch) const;

 private:
  ScratchCut cut_;
  int64_t tokens_, entries_, lists_, chunk_, tiles_, max_parts_;
  int64_t counts_at_, rows_at_, begin_at_, item_at_, partial_index_at_, partial_at_;
};

}  // namespace longspan
