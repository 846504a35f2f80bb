#include "tests/support/nsa_compare.h"

#include <gtest/gtest.h>

#include "tests/support/compare.h"

namespace longspan::test {

void ExpectSameBits(const NsaOutputs& found, const NsaOutputs& expected) {
  EXPECT_TRUE(BitEqual("selected", found.selected, expected.selected));
  EXPECT_TRUE(BitEqual("scores", found.scores, expected.scores));
  EXPECT_TRUE(BitEqual("out", found.out, expected.out));
  for (int branch : {kCmp, kSlc, kWin}) {
    EXPECT_TRUE(BitEqual(std::string("o_") + kBranchNames[branch], found.o[branch], expected.o[branch]));
    EXPECT_TRUE(BitEqual(std::string("lse_") + kBranchNames[branch], found.lse[branch], expected.lse[branch]));
  }
}

void ExpectSameBits(NsaArrays found, NsaArrays expected) {
  const auto a = found.Named(), b = expected.Named();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(BitEqual("d_" + a[i].first, *a[i].second, *b[i].second));
}

void ExpectOutputsClose(const NsaOutputs& found, const NsaOutputs& expected, double tolerance) {
  EXPECT_TRUE(RmsClose("out", found.out, expected.out, tolerance));
  for (int branch : {kCmp, kSlc, kWin}) {
    EXPECT_TRUE(RmsClose(std::string("o_") + kBranchNames[branch], found.o[branch], expected.o[branch], tolerance));
    EXPECT_TRUE(
        RmsClose(std::string("lse_") + kBranchNames[branch], found.lse[branch], expected.lse[branch], tolerance));
  }
  EXPECT_TRUE(RmsClose("k_cmp", found.k_cmp, expected.k_cmp, tolerance));
  EXPECT_TRUE(RmsClose("v_cmp", found.v_cmp, expected.v_cmp, tolerance));
}

void ExpectGradientsClose(NsaArrays found, NsaArrays expected, double tolerance) {
  const auto a = found.Named(), b = expected.Named();
  ASSERT_EQ(a.size(), b.size());
  std::vector<const Array*> all;
  for (auto& [name, values] : b) all.push_back(values);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(RmsClose("d_" + a[i].first, *a[i].second, *b[i].second, tolerance, GradientFloor(all)));
  }
}

}  // namespace longspan::test
