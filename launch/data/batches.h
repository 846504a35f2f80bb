// Batches: the order in which sequences are trained on, and one rank's part of a sequence.
//
// The order is endless: epoch after epoch, each a permutation of the source's sequences drawn from (seed, epoch). The
// sequence at a place of the order is a pure function of (seed, place), so a resumed run continues exactly. A step
// takes the next `sequences_per_step` places whatever dp is; replica i of dp takes every dp-th of them, from the i-th
// on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/data/sequence_source.h"
#include "parallel/layout.h"

namespace longspan {

// One rank's part of one sequence: T of its S tokens, in the order of the layout's local rows.
struct Batch {
  std::vector<int32_t> tokens;     // [T]
  std::vector<int32_t> targets;    // [T], -1 = no label
  std::vector<int32_t> positions;  // [T], counted from the document's start
  std::vector<int32_t>
      positions_cmp;               // [T/d], of the compressed tokens in this rank's rows; 0 for the rows before token 0
  std::vector<int32_t> doc_start;  // [S], of the whole sequence: the same on every rank
  int64_t labels = 0;              // valid targets of the whole sequence: the same on every rank
};

class BatchLoader {
 public:
  // For rank `cp_index` of the layout. The source must outlive the loader; its length is the layout's sequence.
  BatchLoader(const SequenceSource& source, const Layout& layout, int cp_index, const NsaConfig& nsa, uint64_t seed);

  // The place in the order of micro-batch `micro` of `step` (both from 0) for replica `dp_index` of `dp`.
  static int64_t Place(int64_t step, int64_t sequences_per_step, int64_t micro, int64_t dp, int64_t dp_index) {
    return step * sequences_per_step + micro * dp + dp_index;
  }
  int64_t SequenceAt(int64_t place);       // number of a sequence of the source
  void Load(int64_t place, Batch& batch);  // reuses the batch's memory

 private:
  const SequenceSource& source_;
  const Layout& layout_;
  const int cp_index_;
  const NsaConfig nsa_;
  const uint64_t seed_;
  int64_t epoch_ = -1;                     // the one that order_ holds
  std::vector<int64_t> order_;             // [source.size()]
  std::vector<int32_t> tokens_, targets_;  // [S] of the sequence being cut
};

// Positions of a rank's compressed tokens (Batch::positions_cmp). doc_start [S].
std::vector<int32_t> SummaryPositions(const Layout& layout, int rank, const NsaConfig& nsa,
                                      std::span<const int32_t> doc_start);

// A permutation of 0..size-1 that depends on nothing but the arguments, on any machine and library.
std::vector<int64_t> ShuffledOrder(int64_t size, uint64_t seed, uint64_t epoch);

// The rules of DESIGN section 2: doc_start[t] <= t, a multiple of `select_block`, non-decreasing, and itself a start.
// Throws Error (data) naming `what`, the position, the rule and the value.
void ValidateDocStart(std::span<const int32_t> doc_start, int64_t select_block, const std::string& what);

}  // namespace longspan
