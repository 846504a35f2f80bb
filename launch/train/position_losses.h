// Losses by how much context a token has: whether more of it helps.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "launch/job/job.h"
#include "model/inputs.h"

namespace longspan {

// Of the tokens at positions [begin, end), counted from their document's start.
struct PositionBucket {
  int64_t begin = 0, end = 0;
  double loss_sum = 0;
  int64_t labels = 0;
};

class PositionLosses {
 public:
  // Each bucket ends at twice the position of the one before it, the last at `sequence` (S); there are up to nine, and
  // the first holds at least 16 positions.
  explicit PositionLosses(int64_t sequence);
  // The losses [T] of this rank's part of a sequence; returns their sum and number.
  std::pair<double, int64_t> Add(const Batch& part, std::span<const double> losses);
  const std::vector<PositionBucket>& own() const { return buckets_; }  // of what was added
  // Collective: of all ranks.
  std::vector<PositionBucket> Sum(Job& job) const;

 private:
  std::vector<PositionBucket> buckets_;
};

}  // namespace longspan
