// The operator's forward pass is the oracle's, on many random odd configurations: outputs, statistics, choices, scores.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/compare.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_compare.h"
#include "tests/support/nsa_run.h"
#include "tests/support/oracle.h"

namespace longspan::test {
namespace {

constexpr uint64_t kSeeds = 150;

// The scores of each (token, group) from the lowest to the highest.
Array SortedByQuery(Array scores, const NsaCase& c) {
  for (auto at = scores.begin(); at != scores.end(); at += c.nsa.select) std::sort(at, at + c.nsa.select);
  return scores;
}

TEST(Forward, Fp64IsTheOracle) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const NsaCase c = RandomCase(seed);
    SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << Describe(c));
    const NsaOutputs found = RunForward(CpuMachine(DType::kF64), c), expected = Oracle(c);
    EXPECT_TRUE(BitEqual("selected", found.selected, expected.selected));
    EXPECT_TRUE(RmsClose("scores", found.scores, expected.scores, 1e-11));
    ExpectOutputsClose(found, expected, 1e-11);
    if (HasFailure()) return;
  }
}

TEST(Forward, Fp32IsTheOracleGivenTheChoice) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const NsaCase c = RandomCase(seed);
    SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << Describe(c));
    const NsaOutputs found = RunForward(CpuMachine(DType::kF32), c);
    ExpectOutputsClose(found, Oracle(c, &found.selected), 1e-5);
    // A near-tie may go either way, but the scores taken are the best ones.
    EXPECT_TRUE(RmsClose("scores", SortedByQuery(found.scores, c), SortedByQuery(Oracle(c).scores, c), 1e-5));
    if (HasFailure()) return;
  }
}

TEST(Forward, AGivenChoiceIsUsed) {
  NsaCase c = RandomCase(3);
  c.nsa.select = 2;
  std::vector<int32_t> own(c.tokens * c.groups * 2, -1);
  for (int64_t i = 0; i < c.tokens * c.groups; ++i)
    own[i * 2] = static_cast<int32_t>(i / c.groups / c.nsa.select_block);
  ExpectOutputsClose(RunForward(CpuMachine(DType::kF64), c, &own), Oracle(c, &own), 1e-11);
}

}  // namespace
}  // namespace longspan::test
