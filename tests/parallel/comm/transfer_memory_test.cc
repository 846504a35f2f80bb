// What NCCL's transfers take besides tensors: bounds of scratch, and what was measured of NCCL itself.
#include "parallel/comm/transfer_memory.h"

#include <gtest/gtest.h>

namespace longspan {
namespace {

TEST(ReduceRounds, OneWhereAllPartsFit) {
  const ReduceRounds rounds(/*longest=*/1001, DType::kF32, /*ranks=*/3);
  EXPECT_EQ(rounds.length, 1001);
  EXPECT_EQ(rounds.stride, 1024);  // 256 bytes
  EXPECT_EQ(rounds.bytes, 3 * 1024 * 4);
}

TEST(ReduceRounds, LongPartsTakeBoundedScratch) {
  for (const int ranks : {2, 3, 8, 512}) {
    const ReduceRounds rounds(int64_t{1} << 33, DType::kBf16, ranks);
    EXPECT_GE(rounds.bytes, ReduceRounds::kBytes - 2 * ranks);
    EXPECT_LE(rounds.bytes, ReduceRounds::kBytes + ReduceRounds::kAlign * ranks);
    EXPECT_GE(rounds.stride, rounds.length);
  }
}

TEST(PeerStage, HoldsASlotForEachOther) {
  EXPECT_EQ(PeerStage(2).bytes, (65 << 20) + 4096);
  for (const int ranks : {2, 4, 7, 16}) {
    const PeerStage stage(ranks);
    EXPECT_EQ(stage.slot % PeerStage::kAlign, 0);
    EXPECT_LE(stage.slot * (ranks - 1), PeerStage::kLarge);
    EXPECT_EQ(stage.bytes, PeerStage::kFlags + (ranks - 1) * (PeerStage::kSmall + stage.slot));
  }
}

// MiB in use on an H100 beyond tensors and scratch, without the 22 of a process alone.
TEST(NcclBytes, AsMeasured) {
  EXPECT_EQ(NcclBytes({1, 1}), 0);
  EXPECT_GT(NcclBytes({8}), NcclBytes({4}));
  EXPECT_EQ(NcclBytes({16, 2}), -1);
  EXPECT_NEAR(static_cast<double>(NcclBytes({2})) / (1 << 20), 1324, 13);
  EXPECT_NEAR(static_cast<double>(NcclBytes({2, 2})) / (1 << 20), 2192, 22);
  EXPECT_NEAR(static_cast<double>(NcclBytes({4, 4})) / (1 << 20), 3731, 37);
}

}  // namespace
}  // namespace longspan
