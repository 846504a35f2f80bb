#include "launch/data/fibonacci.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

namespace longspan {
namespace {

struct Sequence {
  explicit Sequence(const SequenceSource& source, int64_t index)
      : tokens(source.length()), targets(source.length()), doc_start(source.length(), 7) {
    source.Fill(index, tokens, targets, doc_start);
  }
  std::vector<int32_t> tokens, targets, doc_start;
};

TEST(Fibonacci, EverySymbolIsTheSumOfTheTwoBefore) {
  for (const FibonacciSplit split : {FibonacciSplit::kTrain, FibonacciSplit::kHeldOut}) {
    const auto source = MakeFibonacciSource(split, 70);
    for (int64_t i = 0; i < source->size(); ++i) {
      const Sequence sequence(*source, i);
      for (int t = 2; t < 70; ++t) {
        ASSERT_EQ(sequence.tokens[t], (sequence.tokens[t - 1] + sequence.tokens[t - 2]) % 10);
      }
      // The two first symbols are not asked for, nor what follows the last.
      EXPECT_EQ(sequence.targets[0], -1);
      EXPECT_EQ(sequence.targets[69], -1);
      for (int t = 1; t < 69; ++t) ASSERT_EQ(sequence.targets[t], sequence.tokens[t + 1]);
      EXPECT_EQ(std::count(sequence.doc_start.begin(), sequence.doc_start.end(), 0), 70);
    }
  }
}

TEST(Fibonacci, SplitsShareNoSequenceAndEveryCycleIsTrainedOn) {
  const auto train = MakeFibonacciSource(FibonacciSplit::kTrain, 64);
  const auto held_out = MakeFibonacciSource(FibonacciSplit::kHeldOut, 64);
  EXPECT_EQ(train->size(), 82);
  EXPECT_EQ(held_out->size(), 18);
  std::set<std::vector<int32_t>> sequences;
  std::set<std::pair<int32_t, int32_t>> trained_pairs;
  for (int64_t i = 0; i < train->size(); ++i) {
    const Sequence sequence(*train, i);
    sequences.insert(sequence.tokens);
    for (int t = 1; t < 64; ++t) trained_pairs.insert({sequence.tokens[t - 1], sequence.tokens[t]});
  }
  for (int64_t i = 0; i < held_out->size(); ++i) sequences.insert(Sequence(*held_out, i).tokens);
  EXPECT_EQ(sequences.size(), 100u);
  EXPECT_EQ(trained_pairs.size(), 100u);  // no sum is asked of held-out sequences that training never shows
}

}  // namespace
}  // namespace longspan
