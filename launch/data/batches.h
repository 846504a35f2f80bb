// BatchLoader: one rank's part of the sequences of a source, in the order in which they are trained on
// (launch/data/sequence_order.h). A step takes the next `sequences_per_step` places of it whatever dp is; replica i of
// dp takes every dp-th of them, from the i-th on.
#pragma once

#include <cstdint>

#include "launch/data/sequence_order.h"
#include "launch/data/sequence_source.h"
#include "model/inputs.h"
#include "parallel/layout.h"

namespace longspan {

class BatchLoader {
 public:
  // For rank `cp_index` of the layout. The source must outlive the loader; its length is the layout's sequence.
  BatchLoader(const SequenceSource& source, const Layout& layout, int cp_index, const NsaConfig& nsa, uint64_t seed);

  // The place in the order of micro-batch `micro` of `step` (both from 0) for replica `dp_index` of `dp`.
  static int64_t Place(int64_t step, int64_t sequences_per_step, int64_t micro, int64_t dp, int64_t dp_index) {
    return step * sequences_per_step + micro * dp + dp_index;
  }
  int64_t SequenceAt(int64_t place) { return order_.At(place); }  // number of a sequence of the source
  const SequenceOrder& order() const { return order_; }
  void Load(int64_t place, Batch& batch) { LoadSequence(SequenceAt(place), batch); }
  void LoadSequence(int64_t number, Batch& batch);  // reuses the batch's memory

 private:
  const SequenceSource& source_;
  const Layout& layout_;
  const int cp_index_;
  const NsaConfig nsa_;
  SequenceOrder order_;
  Sequence sequence_;  // the one being cut
};

}  // namespace longspan
