// What a layer's selection looks like: how far its blocks lie from who reads them, and how much queries have in common,
// which kernels and exchanges live by.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "parallel/layout.h"
#include "runtime/tensor.h"

namespace longspan {

// Means over queries and groups; of `distinct_blocks` and `distinct_share` over ranks and groups.
struct SelectionStats {
  // Where the chosen blocks lie, shares that add up to 1: with the query's rank, in the halo that its window borrows
  // anyway, with another rank.
  double local = 0, halo = 0, remote = 0;
  double distinct_blocks = 0;                 // that the queries of a rank chose
  double distinct_share = 0;                  // of the blocks up to the rank's last token
  double jaccard = 0;                         // of a query and the next: blocks in common, of those that either chose
  double hottest = 0;                         // the block that most queries chose: by what share of them
  double union2 = 0, union4 = 0, union8 = 0;  // blocks that as many neighbours chose together
  void Add(const SelectionStats& other, double weight);
};

// selected [S,G,N] I32, each row ascending, then -1. `window` tokens are borrowed, itself included.
SelectionStats StatsOf(std::span<const int32_t> selected, const Shape& shape, const Layout& layout, int64_t window);

struct RecordedSelections {
  std::string line;                          // says so
  std::map<int64_t, SelectionStats> layers;  // means over the sequences; on rank 0
};

}  // namespace longspan
