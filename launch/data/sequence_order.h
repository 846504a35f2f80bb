// SequenceOrder: which sequence of a source stands at which place of the endless order in which they are trained on.
//
// Both are pure functions of the parts, the seed and the place, so a resumed run continues exactly, whatever the ranks.
// Turns: a part of weight w, its share of all, has its k-th turn (from 0) at time (k + 1/2) / w; places are turns in
// the order of their times, of equal ones that of the first part first. So before every place each part has had its
// share of turns, but for at most half the number of parts and one. Sequences: a part's turns go through it epoch after
// epoch, each a permutation of its sequences drawn from (seed, part, epoch).
#pragma once

#include <cstdint>
#include <vector>

#include "launch/data/sequence_source.h"

namespace longspan {

class SequenceOrder {
 public:
  SequenceOrder(std::vector<SequenceSource::Part> parts, uint64_t seed);

  int64_t At(int64_t place);  // number of a sequence of the source
  // How often each part was passed through in the places before this one. Safe beside At of another thread.
  std::vector<double> Epochs(int64_t place) const;

 private:
  std::vector<int64_t> TurnsBefore(int64_t place) const;  // by part; their sum is `place`
  size_t NextPart(const std::vector<int64_t>& turns) const;
  double Time(size_t part, int64_t turn) const { return (static_cast<double>(turn) + 0.5) / shares_[part]; }

  struct Epoch {
    int64_t number = -1;
    std::vector<uint32_t> order;
  };
  const std::vector<SequenceSource::Part> parts_;
  const uint64_t seed_;
  std::vector<double> shares_;
  std::vector<Epoch> epochs_;  // by part, the one last asked for
};

// A permutation of 0..size-1 that depends on nothing but the arguments, on any machine and library. At most 2^32.
std::vector<uint32_t> ShuffledOrder(int64_t size, uint64_t seed, uint64_t epoch);

}  // namespace longspan
