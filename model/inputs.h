// What a model is run on: one rank's part of one sequence, on the host and on the device, how it is cut from the whole,
// and the rules of doc_start.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention/nsa_config.h"
#include "parallel/layout.h"
#include "runtime/tensor.h"

namespace longspan {

// A whole sequence, on the host.
struct Sequence {
  explicit Sequence(int64_t length) : tokens(length), targets(length), doc_start(length) {}
  std::vector<int32_t> tokens;     // [S]
  std::vector<int32_t> targets;    // [S], -1 = no label
  std::vector<int32_t> doc_start;  // [S], position of the first token of each token's document
};

// One rank's part of a sequence, in the order of the layout's local rows: on the host ..
struct Batch {
  std::vector<int32_t> tokens;             // [T]
  std::vector<int32_t> targets;            // [T]
  std::vector<int32_t> positions;          // [T], counted from the document's start
  std::vector<int32_t> summary_positions;  // [T/d], see SummaryPositions
  std::vector<int32_t> doc_start;          // [S], of the whole sequence: the same on every rank
  int64_t labels = 0;                      // of the whole sequence: the same on every rank
  int64_t number = 0;                      // of the sequence, in what it was taken from
};

// .. and on the device.
struct SequenceInputs {
  Tensor tokens;             // [T] I32
  Tensor targets;            // [T] I32
  Tensor positions;          // [T] I32
  Tensor summary_positions;  // [T/d] I32
  Tensor doc_start;          // [S] I32; null = one document
  Tensor loss_scale;         // [1] F64, of the sum of token losses whose gradient is taken
};

// The part of a rank of the layout, whose sequence it is. Reuses the batch's memory, but for summary_positions.
void CutSequence(const Sequence& sequence, const Layout& layout, int rank, const NsaConfig& nsa, Batch* batch);

// The position of the first token of each compressed token in a rank's rows, counted from the document's start; 0 in
// the rows before token 0. doc_start [S].
std::vector<int32_t> SummaryPositions(const Layout& layout, int rank, const NsaConfig& nsa,
                                      std::span<const int32_t> doc_start);

// The rules of DESIGN section 2: doc_start[t] <= t, a multiple of `select_block`, non-decreasing, and itself a start.
// Throws Error (data) naming `what`, the position, the rule and the value.
void ValidateDocStart(std::span<const int32_t> doc_start, int64_t select_block, const std::string& what);

}  // namespace longspan
