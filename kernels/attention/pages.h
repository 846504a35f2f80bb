// How the rows of a sequence lie in the buffers of one rank: queries in segments, keys and values in pages.
#pragma once

#include <cstdint>

#include "runtime/tensor.h"

namespace longspan {

// Tokens [begin, begin+length) of the sequence lie in local rows [row, row+length).
struct Segment {
  int64_t begin = 0;
  int64_t length = 0;
  int64_t row = 0;
  bool operator==(const Segment&) const = default;
};

// Rows of the sequence in pages of `page_rows`: row i of the sequence is row
// table[i / page_rows] * page_rows + i % page_rows of the buffer. table = -1: not here (and never needed).
struct Pages {
  Tensor table;  // [ceil(rows/page_rows)] I32
  int64_t page_rows = 1;
};

}  // namespace longspan
