#include "kernels/attention/cpu/key_tiles.h"

#include <algorithm>

#include "kernels/attention/cpu/pages.h"

namespace longspan {

void KeyMap::Build(const std::vector<QueryTile>& queries, int64_t group, const Visibility& visible, const Pages& pages,
                   int64_t buffer_rows, int64_t tile_rows) {
  const int64_t rows = pages.table.size() * pages.page_rows;
  tile_rows_ = tile_rows;

  // +1 where a span begins, -1 where it ends; the running sum counts the spans over a row.
  seen_.assign(rows + 1, 0);
  std::vector<Span> spans;
  for (const QueryTile& tile : queries) {
    spans.clear();
    for (int64_t i = 0; i < tile.count; ++i) visible(tile.at(i), group, &spans);
    for (const Span& span : spans) {
      LS_CHECK(0 <= span.begin && span.begin < span.end && span.end <= rows,
               "a query sees key rows [{},{}) of the {} rows of the page table", span.begin, span.end, rows);
      ++seen_[span.begin];
      --seen_[span.end];
    }
  }
  for (int64_t row = 1; row <= rows; ++row) seen_[row] += seen_[row - 1];

  slot_.assign(rows / tile_rows + 1, -1);
  rows_.clear();
  for (int64_t row = 0; row < rows; ++row) {
    if (seen_[row] == 0) continue;
    const int64_t place = BufferRow(pages, row, buffer_rows);
    int64_t& slot = slot_[row / tile_rows];
    if (slot < 0) {
      slot = slots();
      rows_.resize(rows_.size() + tile_rows, -1);
    }
    rows_[slot * tile_rows + row % tile_rows] = place;
  }
}

template <typename T>
template <typename Put>
void KeyTiles<T>::Pack(const KeyMap& map, const Tensor& x, int64_t group, int64_t tile_rows, const Put& put) {
  const int64_t groups = x.dim(1), width = x.dim(2);
  tile_size_ = tile_rows * stride_;
  data_ = memory_.Get(map.slots() * tile_size_);
  const T* const from = x.As<const T>() + group * width;
#pragma omp parallel for
  for (int64_t slot = 0; slot < map.slots(); ++slot) {
    T* const tile = data_ + slot * tile_size_;
    std::fill_n(tile, tile_size_, T(0));
    for (int64_t i = 0; i < map.tile_rows(); ++i) {
      const int64_t row = map.rows(slot)[i];
      if (row >= 0) put(tile, i, from + row * groups * width);
    }
  }
}

template <typename T>
void KeyTiles<T>::PackRows(const KeyMap& map, const Tensor& x, int64_t group) {
  const int64_t width = x.dim(2), stride = PadRow<T>(width);
  stride_ = stride;
  Pack(map, x, group, map.tile_rows(),
       [=](T* tile, int64_t i, const T* values) { std::copy_n(values, width, tile + i * stride); });
}

template <typename T>
void KeyTiles<T>::PackColumns(const KeyMap& map, const Tensor& x, int64_t group) {
  const int64_t width = x.dim(2), stride = PadRow<T>(map.tile_rows());
  stride_ = stride;
  Pack(map, x, group, width, [=](T* tile, int64_t i, const T* values) {
    for (int64_t c = 0; c < width; ++c) tile[c * stride + i] = values[c];
  });
}

template <typename T>
void AddTileRows(const KeyMap& map, const T* tiles, int64_t parts, const Tensor& d_x, int64_t group) {
  const int64_t groups = d_x.dim(1), width = d_x.dim(2), tile_rows = map.tile_rows();
  const int64_t stride = PadRow<T>(width);
  const int64_t part_size = map.slots() * tile_rows * stride;
  T* const to = d_x.As<T>() + group * width;
#pragma omp parallel for
  for (int64_t i = 0; i < map.slots() * tile_rows; ++i) {
    const int64_t row = map.rows(0)[i];
    if (row < 0) continue;
    T* const out = to + row * groups * width;
    for (int64_t c = 0; c < width; ++c) {
      T sum = tiles[i * stride + c];
      for (int64_t part = 1; part < parts; ++part) sum += tiles[part * part_size + i * stride + c];
      out[c] += sum;
    }
  }
}

template class KeyTiles<float>;
template class KeyTiles<double>;
template void AddTileRows(const KeyMap&, const float*, int64_t, const Tensor&, int64_t);
template void AddTileRows(const KeyMap&, const double*, int64_t, const Tensor&, int64_t);

}  // namespace longspan
