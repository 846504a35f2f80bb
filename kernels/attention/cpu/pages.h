// Reading a page table on the host.
#pragma once

#include "kernels/attention/ops.h"

namespace longspan {

// Where row `row` of the sequence lies in a buffer of `buffer_rows` rows. Throws Error when it is not there.
inline int64_t BufferRow(const Pages& pages, int64_t row, int64_t buffer_rows) {
  const int64_t page = row / pages.page_rows;
  LS_CHECK(page < pages.table.size(), "row {} of the sequence is needed, but the page table ends at row {}", row,
           pages.table.size() * pages.page_rows);
  const int64_t place = pages.table.As<const int32_t>()[page] * pages.page_rows + row % pages.page_rows;
  LS_CHECK(place >= 0 && place < buffer_rows, "row {} of the sequence is needed, but is not in the buffer of {} rows",
           row, buffer_rows);
  return place;
}

}  // namespace longspan
