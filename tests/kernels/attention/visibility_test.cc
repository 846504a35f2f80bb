// Who sees what, counted: with q = 0 every score is 0, and lse is the logarithm of the number of keys seen.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/compare.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_run.h"

namespace longspan::test {
namespace {

// The paper's sizes, one head.
NsaCase Uniform(int64_t tokens, const NsaConfig& nsa = {}) {
  NsaCase c{.tokens = tokens, .nsa = nsa};
  Randomize(c, static_cast<uint64_t>(tokens));
  c.in.q.assign(c.in.q.size(), 0.0);
  return c;
}

Array LogCounts(int64_t tokens, auto count) {
  Array lse;
  for (int64_t t = 0; t < tokens; ++t) lse.push_back(std::log(static_cast<double>(count(t))));
  return lse;
}

class Lengths : public ::testing::TestWithParam<int64_t> {};

TEST_P(Lengths, NumberOfCompressedTokensSeen) {
  const int64_t tokens = GetParam();
  for (DType dtype : {DType::kF32, DType::kF64}) {
    const NsaOutputs y = RunForward(CpuMachine(dtype), Uniform(tokens));
    const Array expected = LogCounts(tokens, [](int64_t t) { return t < 31 ? 0 : (t - 31) / 16 + 1; });
    EXPECT_TRUE(RmsClose("lse_cmp", y.lse[kCmp], expected, dtype == DType::kF64 ? 1e-14 : 1e-6));
    for (int64_t t = 0; t < std::min<int64_t>(31, tokens); ++t) {
      EXPECT_EQ(y.lse[kCmp][t], -std::numeric_limits<double>::infinity());
      for (int64_t e = 0; e < 4; ++e) EXPECT_EQ(y.o[kCmp][t * 4 + e], 0.0);
    }
    EXPECT_TRUE(AllFinite("o_cmp", y.o[kCmp]));
    EXPECT_TRUE(AllFinite("out", y.out));
  }
}

TEST_P(Lengths, SelectedAndWindowSeeEverythingUpToTheQuery) {
  const NsaOutputs y = RunForward(CpuMachine(DType::kF64), Uniform(GetParam()));
  const Array expected = LogCounts(GetParam(), [](int64_t t) { return t + 1; });
  EXPECT_TRUE(RmsClose("lse_slc", y.lse[kSlc], expected, 1e-14));
  EXPECT_TRUE(RmsClose("lse_win", y.lse[kWin], expected, 1e-14));
}

// Rows that see no summary send no gradient through the compressed branch, and no NaN either.
TEST_P(Lengths, GradientsOfRowsThatSeeNothing) {
  NsaCase c = Uniform(GetParam());
  for (int64_t t = 31; t < c.tokens; ++t) std::fill_n(c.d_out.begin() + t * 4, 4, 0.0);
  NsaArrays gradients = RunBoth(CpuMachine(DType::kF64), c).gradients;
  for (auto& [name, values] : gradients.Named()) {
    EXPECT_TRUE(AllFinite(name, *values));
    if (name != "k_cmp" && name != "v_cmp" && !name.starts_with("phi")) continue;
    EXPECT_EQ(*values, Array(values->size(), 0.0)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Tokens, Lengths, ::testing::Values(1, 15, 16, 17, 30, 31, 32, 33, 47, 48, 63, 64, 65, 79, 80));

TEST(WindowEdge, TokensIncludingSelf) {
  for (int64_t window : {1, 2, 63, 64, 65, 512, 519, 520, 521, 5000}) {
    NsaConfig nsa;
    nsa.window = window;
    const NsaOutputs y = RunForward(CpuMachine(DType::kF64), Uniform(520, nsa));
    const Array expected = LogCounts(520, [&](int64_t t) { return std::min(t + 1, window); });
    EXPECT_TRUE(RmsClose("lse_win", y.lse[kWin], expected, 1e-14)) << "window " << window;
    if (window == 512) {
      for (int64_t t : {511, 512, 513}) EXPECT_NEAR(std::exp(y.lse[kWin][t]), 512, 1e-9) << "t = " << t;
    }
  }
}

TEST(WindowEdge, WindowOfOneIsTheValueItself) {
  NsaConfig nsa;
  nsa.window = 1;
  const NsaCase c = Uniform(70, nsa);
  EXPECT_TRUE(RmsClose("o_win", RunForward(CpuMachine(DType::kF64), c).o[kWin], c.V(kWin), 1e-15));
}

TEST(DocumentEdge, NothingIsSeenAcross) {
  NsaConfig nsa;
  nsa.window = 20;
  nsa.select = 4;
  NsaCase c{.tokens = 300, .nsa = nsa};
  c.doc_start = PackDocuments({65, 15, 108}, 64);  // start at 0, 128, 192
  Randomize(c, 3);
  c.in.q.assign(c.in.q.size(), 0.0);
  const NsaOutputs y = RunForward(CpuMachine(DType::kF64), c);
  auto age = [&](int64_t t) { return t - c.doc_start[t]; };
  EXPECT_TRUE(RmsClose("lse_cmp", y.lse[kCmp],
                       LogCounts(300, [&](int64_t t) { return age(t) < 31 ? 0 : (age(t) - 31) / 16 + 1; }), 1e-14));
  EXPECT_TRUE(RmsClose("lse_slc", y.lse[kSlc], LogCounts(300, [&](int64_t t) { return age(t) + 1; }), 1e-14));
  EXPECT_TRUE(RmsClose("lse_win", y.lse[kWin],
                       LogCounts(300, [&](int64_t t) { return std::min<int64_t>(20, age(t) + 1); }), 1e-14));
}

}  // namespace
}  // namespace longspan::test
