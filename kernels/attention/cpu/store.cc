// Rows into pages: overwrites those rows of y; bound by memory.
#include "kernels/attention/cpu/store.h"

#include <algorithm>
#include <cstring>

#include "kernels/attention/cpu/pages.h"

namespace longspan {

void StoreRows(const StoreArgs& args) {
  const int64_t row_bytes = args.x.dim(1) * args.x.dim(2) * DTypeSize(args.x.dtype), page_rows = args.pages.page_rows;
  const auto* const from = static_cast<const char*>(args.x.data);
  auto* const to = static_cast<char*>(args.y.data);
  for (const Segment& segment : args.segments) {
    // As many rows at once as lie in one page.
    for (int64_t i = 0, count = 0; i < segment.length; i += count) {
      const int64_t position = segment.begin + i;
      count = std::min(segment.length - i, page_rows - position % page_rows);
      const int64_t last = BufferRow(args.pages, position + count - 1, args.y.dim(0));
      std::memcpy(to + (last + 1 - count) * row_bytes, from + (segment.row + i) * row_bytes, count * row_bytes);
    }
  }
}

}  // namespace longspan
