// Importance and selection (equations 9 to 12) with probabilities set by hand: one-hot, all equal, all zero, ordered.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/support/compare.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_run.h"
#include "tests/support/oracle.h"

namespace longspan::test {
namespace {

constexpr double kNever = -1000;  // a logit whose exponential is exactly 0

struct Choice {
  std::vector<int32_t> selected;  // [n]
  Array scores;                   // [n]
};

// Select for query `t` alone, where compressed token j has probability exp(logits[j]).
Choice SelectByLogits(DType dtype, const NsaConfig& nsa, int64_t t, const Array& logits) {
  const Machine machine = CpuMachine(dtype);
  const auto rows = static_cast<int64_t>(logits.size()) + nsa.lead();
  Array k(rows * 2, 0.0);
  for (size_t j = 0; j < logits.size(); ++j) k[(j + nsa.lead()) * 2] = logits[j];
  const OwnedTensor q = Upload(machine, "q", Array{1, 0}, {1, 1, 2});
  const OwnedTensor keys = Upload(machine, "k", k, {rows, 1, 2});
  const OwnedTensor table = Upload(machine, "table", std::vector<int32_t>{0}, {1});
  const OwnedTensor lse = Upload(machine, "lse", Array{0}, {1, 1});
  const OwnedTensor selected(machine, "selected", DType::kI32, {1, 1, nsa.select});
  const OwnedTensor scores(machine, "scores", dtype, {1, 1, nsa.select});
  SelectArgs args;
  args.segments = {{t, 1, 0}};
  args.q = q.view();
  args.k = keys.view();
  args.pages = {table.view(), rows};
  args.lse = lse.view();
  args.scale = 1;
  args.nsa = nsa;
  args.selected = selected.view();
  args.scores = scores.view();
  machine.ops->attention->Select(*machine.stream, args);
  return {DownloadInts(machine, selected.view()), Download(machine, scores.view())};
}

int64_t CompressedTokens(const NsaConfig& nsa, int64_t tokens) { return (tokens - nsa.block) / nsa.stride + 1; }

// The blocks that one compressed token of probability 1 gives a score, for a query at the end of `blocks` blocks.
std::map<int64_t, double> OneHot(DType dtype, NsaConfig nsa, int64_t blocks, int64_t token) {
  nsa.select = blocks;
  nsa.init = nsa.local = 0;
  const int64_t tokens = blocks * nsa.select_block;
  Array logits(CompressedTokens(nsa, tokens), kNever);
  logits[token] = 0;
  const Choice choice = SelectByLogits(dtype, nsa, tokens - 1, logits);
  std::map<int64_t, double> scores;
  for (int64_t i = 0; i < blocks; ++i) {
    EXPECT_EQ(choice.selected[i], i);
    if (choice.scores[i] != 0) scores[choice.selected[i]] = choice.scores[i];
  }
  return scores;
}

std::vector<int32_t> Padded(std::vector<int32_t> blocks, int64_t n) {
  blocks.resize(n, -1);
  return blocks;
}

class Selection : public ::testing::TestWithParam<DType> {};

TEST_P(Selection, Equation9PaperSizes) {
  const NsaConfig nsa{.block = 32, .stride = 16, .select_block = 64};
  for (int64_t token = 0; token < CompressedTokens(nsa, 5 * 64); ++token) {
    const int64_t i = token / 4;
    const std::map<int64_t, double> expected =
        token % 4 < 3 ? std::map<int64_t, double>{{i, 2}} : std::map<int64_t, double>{{i, 1}, {i + 1, 1}};
    EXPECT_EQ(OneHot(GetParam(), nsa, 5, token), expected) << "compressed token " << token;
  }
}

TEST_P(Selection, Equation9AllSizesEqual) {
  const NsaConfig nsa{.block = 16, .stride = 16, .select_block = 16};
  for (int64_t token = 0; token < 5; ++token) {
    EXPECT_EQ(OneHot(GetParam(), nsa, 5, token), (std::map<int64_t, double>{{token, 1}}));
  }
}

TEST_P(Selection, Equation9CompressionAsLongAsSelection) {
  const NsaConfig nsa{.block = 64, .stride = 16, .select_block = 64};
  for (int64_t token = 0; token < CompressedTokens(nsa, 4 * 64); ++token) {
    const int64_t i = token / 4, over = token % 4;
    std::map<int64_t, double> expected = {{i, 4.0 - over}};
    if (over > 0) expected[i + 1] = over;
    EXPECT_EQ(OneHot(GetParam(), nsa, 4, token), expected) << "compressed token " << token;
  }
}

// The indices as printed would give compressed token 1 (tokens 16..47) to block 1 (tokens 64..127).
TEST_P(Selection, Equation9IsNotReadLiterally) {
  const NsaConfig nsa{.block = 32, .stride = 16, .select_block = 64};
  EXPECT_EQ(BlockScores({0, 1, 0, 0, 0, 0, 0}, nsa, 2, Equation9::kLiteral), (Array{0, 2}));
  EXPECT_EQ(BlockScores({0, 1, 0, 0, 0, 0, 0}, nsa, 2, Equation9::kGeometric), (Array{2, 0}));
  EXPECT_EQ(OneHot(GetParam(), nsa, 2, 1), (std::map<int64_t, double>{{0, 2}}));
}

// A query of block `own` sees all compressed tokens with the same logit.
std::vector<int32_t> SelectEqual(DType dtype, const NsaConfig& nsa, int64_t own, double logit, int64_t offset) {
  const int64_t t = own * nsa.select_block + offset;
  const Array logits(std::max<int64_t>(0, CompressedTokens(nsa, (own + 1) * nsa.select_block)), logit);
  return SelectByLogits(dtype, nsa, t, logits).selected;
}

std::vector<int32_t> Range(int32_t begin, int32_t end) {
  std::vector<int32_t> blocks;
  for (int32_t i = begin; i < end; ++i) blocks.push_back(i);
  return blocks;
}

// n=16: all blocks up to the sixteenth; then 0, own-1, own and the 13 lowest of the rest, whether the scores are all
// equal or all exactly zero by underflow.
TEST_P(Selection, TiesGoToTheLowestIndex) {
  for (const NsaConfig& nsa : {NsaConfig{.block = 64, .stride = 64, .select_block = 64}, NsaConfig{}}) {
    for (double logit : {0.0, kNever}) {
      for (int32_t own : {0, 1, 2, 3, 14, 15, 16, 17}) {
        std::vector<int32_t> expected = Range(0, std::min(own + 1, 14));
        for (int32_t i : {own - 1, own}) {
          if (i >= static_cast<int32_t>(expected.size())) expected.push_back(i);
        }
        if (own == 15) expected = Range(0, 16);
        for (int64_t offset : {0, 31, 63}) {
          EXPECT_EQ(SelectEqual(GetParam(), nsa, own, logit, offset), Padded(expected, 16))
              << "own block " << own << ", offset " << offset << ", logit " << logit << ", l " << nsa.block;
        }
      }
    }
  }
}

TEST_P(Selection, WithoutInitialBlocksTheWeakFirstBlockLoses) {
  const NsaConfig nsa{.init = 0};  // block 0 lacks compressed token -1: score 7, the others have 8
  std::vector<int32_t> expected = Range(1, 15);
  expected.insert(expected.end(), {16, 17});
  EXPECT_EQ(SelectEqual(GetParam(), nsa, 17, 0, 63), expected);
}

TEST_P(Selection, WithoutForcedBlocksOnlyScoresCount) {
  const NsaConfig nsa{.block = 4, .stride = 4, .select_block = 4, .select = 2, .init = 0, .local = 0};
  EXPECT_EQ(SelectByLogits(GetParam(), nsa, 19, {-3, -1, -4, -2, -5}).selected, (std::vector<int32_t>{1, 3}));
  // The query's own block is not complete: no summary speaks for it, its score is 0.
  EXPECT_EQ(SelectByLogits(GetParam(), nsa, 18, {-3, -1, -4, -2, 0}).selected, (std::vector<int32_t>{1, 3}));
}

TEST_P(Selection, ForcedBlocksStayWhateverTheScores) {
  const NsaConfig nsa{.block = 4, .stride = 4, .select_block = 4, .select = 5, .init = 2, .local = 2};
  const Choice choice = SelectByLogits(GetParam(), nsa, 31, {kNever, kNever, -1, -2, 0, -3, kNever, kNever});
  EXPECT_EQ(choice.selected, (std::vector<int32_t>{0, 1, 4, 6, 7}));
  EXPECT_EQ(choice.scores, (Array{0, 0, 1, 0, 0}));
}

TEST_P(Selection, OneBlockIsTheQuerysOwn) {
  const NsaConfig nsa{.block = 4, .stride = 2, .select_block = 8, .select = 1, .init = 0, .local = 1};
  for (int32_t own : {0, 1, 5}) EXPECT_EQ(SelectEqual(GetParam(), nsa, own, 0, 3), std::vector<int32_t>{own});
}

INSTANTIATE_TEST_SUITE_P(Types, Selection, ::testing::Values(DType::kF32, DType::kF64),
                         [](const auto& info) { return DTypeName(info.param); });

TEST(SelectionOfHeads, PermutedInsideAGroupIsUnchanged) {
  NsaCase c{.tokens = 200, .heads = 8, .groups = 2, .key_width = 6, .value_width = 3};
  c.nsa = {.block = 8, .stride = 4, .select_block = 8, .select = 6, .window = 9};
  Randomize(c, 7);
  const NsaOutputs straight = RunForward(CpuMachine(DType::kF64), c);
  const std::vector<int64_t> from = {2, 0, 3, 1, 5, 7, 4, 6};
  NsaCase permuted = c;
  auto permute = [&](const Array& x, int64_t width) {
    Array y(x.size());
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (int64_t h = 0; h < c.heads; ++h) {
        std::copy_n(x.begin() + (t * c.heads + from[h]) * width, width, y.begin() + (t * c.heads + h) * width);
      }
    }
    return y;
  };
  permuted.in.q = permute(c.in.q, c.key_width);
  permuted.in.gates = permute(c.in.gates, 3);
  const NsaOutputs found = RunForward(CpuMachine(DType::kF64), permuted);
  EXPECT_TRUE(BitEqual("selected", found.selected, straight.selected));
  EXPECT_TRUE(RmsClose("scores", found.scores, straight.scores, 1e-13));
  EXPECT_TRUE(RmsClose("out", found.out, permute(straight.out, c.value_width), 1e-13));
}

}  // namespace
}  // namespace longspan::test
