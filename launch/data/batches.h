// BatchLoader: the order in which the sequences of a source are trained on, and one rank's part of each.
//
// The order is endless: epoch after epoch, each a permutation of the source's sequences drawn from (seed, epoch). The
// sequence at a place of the order is a pure function of (seed, place), so a resumed run continues exactly. A step
// takes the next `sequences_per_step` places whatever dp is; replica i of dp takes every dp-th of them, from the i-th
// on.
#pragma once

#include <cstdint>
#include <vector>

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
  int64_t SequenceAt(int64_t place);  // number of a sequence of the source
  void Load(int64_t place, Batch& batch) { LoadSequence(SequenceAt(place), batch); }
  void LoadSequence(int64_t number, Batch& batch);  // reuses the batch's memory

 private:
  const SequenceSource& source_;
  const Layout& layout_;
  const int cp_index_;
  const NsaConfig nsa_;
  const uint64_t seed_;
  int64_t epoch_ = -1;           // the one that order_ holds
  std::vector<uint32_t> order_;  // [source.size()]
  Sequence sequence_;            // the one being cut
};

// A permutation of 0..size-1 that depends on nothing but the arguments, on any machine and library. At most 2^32.
std::vector<uint32_t> ShuffledOrder(int64_t size, uint64_t seed, uint64_t epoch);

}  // namespace longspan
