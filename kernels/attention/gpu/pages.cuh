// Where a row of the sequence lies in a buffer (Pages in kernels/attention/pages.h).
#pragma once

#include <cstdint>

namespace longspan {

// The buffer row of row `row` of the sequence; negative when it is not there.
__device__ inline int64_t PageRow(const int32_t* table, int64_t page_rows, int64_t row) {
  const int64_t page = row / page_rows;
  return static_cast<int64_t>(__ldg(table + page)) * page_rows + (row - page * page_rows);
}

// Where neighbouring rows of the sequence lie: found at once when one page holds them all, as is nearly always so.
class RowFinder {
 public:
  // For rows [first, first+count) of which those in [first, end) may be asked for; first < end.
  __device__ RowFinder(const int32_t* table, int page_rows, int first, int count)
      : table_(table), page_rows_(page_rows), first_(first) {
    const int page = first / page_rows;
    one_page_ = first % page_rows + count <= page_rows;
    const int slot = one_page_ ? table[page] : 0;
    base_ = slot < 0 ? -1 : static_cast<int64_t>(slot) * page_rows + first % page_rows;
  }
  // The buffer row of row first + i, below 0 when it is not there.
  __device__ int64_t at(int i) const {
    if (one_page_) return base_ < 0 ? -1 : base_ + i;
    const int row = first_ + i, slot = table_[row / page_rows_];
    return slot < 0 ? -1 : static_cast<int64_t>(slot) * page_rows_ + row % page_rows_;
  }

 private:
  const int32_t* table_;
  int page_rows_, first_;
  bool one_page_;
  int64_t base_;
};

}  // namespace longspan
