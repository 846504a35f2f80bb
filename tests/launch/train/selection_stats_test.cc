// Statistics of selections counted by hand.
#include "launch/train/selection_stats.h"

#include <gtest/gtest.h>

#include <vector>

namespace longspan {
namespace {

constexpr int64_t kBlock = 2;

TEST(SelectionStats, OfEightTokensOnTwoRanks) {
  // Blocks 0..3 of two tokens; rank 0 has tokens 0..3, rank 1 tokens 4..7.
  const Layout layout(LayoutKind::kContiguous, 8, 2, kBlock);
  const std::vector<int32_t> selected = {0, -1, 0, -1, 0, 1, 0, 1, 0, 2, 1, 2, 0, 3, 2, 3};
  const SelectionStats stats = StatsOf(selected, {8, 1, 2}, layout, /*window=*/3);
  // 14 choices: rank 0 has six, all its own; of rank 1's eight 2, 2, 3, 2, 3 are its own, block 1 is in the halo of two
  // tokens, block 0 twice remote.
  EXPECT_NEAR(stats.local, 11.0 / 14, 1e-12);
  EXPECT_NEAR(stats.halo, 1.0 / 14, 1e-12);
  EXPECT_NEAR(stats.remote, 2.0 / 14, 1e-12);
  EXPECT_NEAR(stats.distinct_blocks, (2 + 4) / 2.0, 1e-12);
  EXPECT_NEAR(stats.distinct_share, (2.0 / 2 + 4.0 / 4) / 2, 1e-12);
  EXPECT_NEAR(stats.jaccard, (1 + 0.5 + 1 + 1.0 / 3 + 1.0 / 3 + 0 + 1.0 / 3) / 7, 1e-12);
  EXPECT_NEAR(stats.hottest, 6.0 / 8, 1e-12);  // block 0
  EXPECT_NEAR(stats.union2, (1 + 2 + 3 + 3) / 4.0, 1e-12);
  EXPECT_NEAR(stats.union4, (2 + 4) / 2.0, 1e-12);
  EXPECT_NEAR(stats.union8, 4, 1e-12);
}

// Nothing but who holds what depends on the ranks.
TEST(SelectionStats, WhatQueriesShareDoesNotDependOnRanks) {
  std::vector<int32_t> selected;
  for (int32_t t = 0; t < 64; ++t) {
    for (const int32_t block : {0, t / 2 / 2, t / 2}) selected.push_back(block);
  }
  const Shape shape = {64, 1, 3};
  const SelectionStats one = StatsOf(selected, shape, Layout(LayoutKind::kHeadTail, 64, 1, kBlock), 8);
  const SelectionStats four = StatsOf(selected, shape, Layout(LayoutKind::kHeadTail, 64, 4, kBlock), 8);
  EXPECT_EQ(one.local, 1);
  EXPECT_LT(four.local, 1);
  EXPECT_GT(four.halo, 0);
  EXPECT_NEAR(four.local + four.halo + four.remote, 1, 1e-12);
  EXPECT_EQ(one.jaccard, four.jaccard);
  EXPECT_EQ(one.hottest, four.hottest);
  EXPECT_EQ(one.union8, four.union8);
}

}  // namespace
}  // namespace longspan
