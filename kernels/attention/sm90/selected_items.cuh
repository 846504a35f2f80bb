// The work of the selected branch's d_k, d_v pass on Hopper, in the order in which it is taken.
#pragma once

#include "kernels/attention/gpu/selection_lists.cuh"

namespace longspan {

// Entries [first, first+count) of all lists' rows, those of list `target` (of a tile of its block's keys: list * tiles
// + tile) after its first `before`, whose sums must be added first.
struct ListItem {
  int first, count, target, before;
};

// Group by group and segment by segment of the queries' rows, so that the items under way read the same few thousand
// queries, which stay in the second-level cache. A list's entries of a segment are cut in items of about one length.
struct ListItems {
  SelectionLists lists;
  int tiles = 1;                    // of keys, of a block: each takes every item of its block
  const ListItem* items = nullptr;  // target is the list alone
  const int32_t* count = nullptr;   // of items
  int32_t* ticket = nullptr;        // 0
  unsigned* done = nullptr;         // [lists, tiles, done_of_target], 0
};

class ListItemsPlan {
 public:
  // For tiles of tile_keys keys, and steps of `step` queries.
  ListItemsPlan(const BackwardParams<SelectedSight>& params, int tile_keys, int done_of_target, int step);
  int64_t scratch_bytes() const { return cut_.bytes; }
  int64_t max_items() const { return max_items_; }  // times tiles
  ListItems Build(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params,
                  unsigned char* scratch) const;

 private:
  SelectionListsPlan lists_;
  ScratchCut cut_;
  int step_, stretches_, stretches_of_segment_, segments_, tiles_;
  int most_;  // entries of an item
  int64_t max_items_, zero_bytes_;
  int64_t items_at_, row_items_at_, zeros_at_;
};

}  // namespace longspan
