// Key/value rows read through a page table, copied into tiles for the attention kernels.
//
// A tile holds `tile_rows` consecutive rows of the sequence, from a multiple of tile_rows on, so that what a query
// adds, and in which order, follows from positions alone. Only tiles and rows that some query sees are touched: other
// rows of a buffer may hold anything.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention/cpu/visibility.h"
#include "kernels/base/scratch_cpu.h"
#include "kernels/base/tile_math_cpu.h"

namespace longspan {

// Which rows the queries of one group see, and where they lie. Slots number the tiles that are needed.
class KeyMap {
 public:
  // `buffer_rows` is R of the tensors that `pages` speaks of. Throws Error when a query sees a row that is not there.
  void Build(const std::vector<QueryTile>& queries, int64_t group, const Visibility& visible, const Pages& pages,
             int64_t buffer_rows, int64_t tile_rows);

  int64_t tile_rows() const { return tile_rows_; }
  int64_t slots() const { return std::ssize(rows_) / tile_rows_; }
  int64_t slot(int64_t tile) const { return slot_[tile]; }
  // Buffer row of each of the slot's rows, -1 where no query sees it.
  const int64_t* rows(int64_t slot) const { return rows_.data() + slot * tile_rows_; }

 private:
  int64_t tile_rows_ = 1;
  std::vector<int32_t> seen_;  // of each row of the sequence, by how many spans
  std::vector<int64_t> slot_;  // of each tile, -1 = not needed
  std::vector<int64_t> rows_;  // [slots, tile_rows]
};

// One tensor's rows of one group in tiles, zeros where no query sees the row.
template <typename T>
class KeyTiles {
 public:
  // x [R,G,W] -> tiles [tile_rows, PadRow(W)]
  void PackRows(const KeyMap& map, const Tensor& x, int64_t group);
  // x [R,G,W] -> tiles [W, PadRow(tile_rows)]
  void PackColumns(const KeyMap& map, const Tensor& x, int64_t group);

  const T* tile(int64_t slot) const { return data_ + slot * tile_size_; }
  int64_t stride() const { return stride_; }  // elements between a tile's rows

 private:
  // put(tile, i, values [W]) for each row i of a tile that a query sees; tiles of `tile_rows` rows of stride_.
  template <typename Put>
  void Pack(const KeyMap& map, const Tensor& x, int64_t group, int64_t tile_rows, const Put& put);

  Scratch<T> memory_;
  T* data_ = nullptr;
  int64_t tile_size_ = 0;
  int64_t stride_ = 0;
};

// d_x[row,group] += the tiles' rows, summed over `parts` first to last; part p's tiles [slots, tile_rows,
// PadRow(W)] start at tiles + p * slots * tile_rows * PadRow(W).
template <typename T>
void AddTileRows(const KeyMap& map, const T* tiles, int64_t parts, const Tensor& d_x, int64_t group);

}  // namespace longspan
