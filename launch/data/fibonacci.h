// The Fibonacci task: sequences over ten symbols, each the sum of the two before it modulo ten.
//
// A sequence is fixed by its first two symbols, so there are 100, numbered; an epoch is all those of a split. Symbol 0
// has no predictor and symbol 1 cannot be predicted, so position 0 carries no label, in training and on held-out
// sequences alike; neither does the last position. Each sequence is one document.
//
// What held out means: the pairs (s[i], s[i+1]) move on six cycles of 60, 20, 12, 4, 3 and 1 pairs. Every fifth pair of
// a cycle, counted from its lowest, is held out (18 pairs): no training sequence begins with one, and no held-out
// sequence is equal to a training sequence. But a training sequence longer than its cycle passes through every pair of
// it, held-out ones included: the task shows that the rule was learned on sequences never seen from their start, not
// that it extends to sums never seen. (Holding out a whole cycle would ask for entries of the addition table that occur
// nowhere.)
#pragma once

#include <memory>

#include "launch/data/sequence_source.h"

namespace longspan {

inline constexpr int64_t kFibonacciSymbols = 10;

enum class FibonacciSplit { kTrain, kHeldOut };

std::unique_ptr<SequenceSource> MakeFibonacciSource(FibonacciSplit split, int64_t length);

}  // namespace longspan
