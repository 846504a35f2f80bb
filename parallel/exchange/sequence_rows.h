// Moves rows between tensors of a whole sequence on the host, [S,...], and the ranks' parts of it, [T,...] on their
// devices. The layout's sequence may be longer than S: the rows after the end are padding.
#pragma once

#include <algorithm>

#include "model/context.h"

namespace longspan {

class SequenceRows {
 public:
  // S = `length`. The context outlives this.
  SequenceRows(const Context& context, int64_t length) : context_(context), length_(length) {}

  // This rank's rows of `whole`; every byte of its padding becomes `padding`. Casts when the floating types differ.
  // Done when it returns.
  void Scatter(const Tensor& whole, const Tensor& part, uint8_t padding = 0) const;

  // Collective: on rank 0 `whole` gets the rows of all ranks' parts, cast when its floating type is another; ignored on
  // the others. `part` must be complete. Done when it returns.
  void Gather(const Tensor& part, DType dtype, const Tensor& whole) const;

 private:
  // Calls move(first row of the whole, first row of the part, rows) for each segment of a rank, without padding.
  template <typename Move>
  void ForRows(int rank, const Move& move) const {
    for (const Segment& segment : context_.layout.segments(rank)) {
      const int64_t rows = std::min(segment.length, length_ - segment.begin);
      if (rows > 0) move(segment.begin, segment.row, rows);
    }
  }

  const Context& context_;
  const int64_t length_;
};

}  // namespace longspan
