// Causality by perturbation: changing tokens from s on leaves everything before s bit-identical, branch by branch, and
// a loss over tokens before s has gradients of exactly 0 at every token from s on.
#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_run.h"

namespace longspan::test {
namespace {

constexpr int64_t kTokens = 140;

NsaCase Case(Phi phi, KvBranches branches, CompressRope rope) {
  NsaCase c{.tokens = kTokens, .heads = 4, .groups = 2, .key_width = 6, .value_width = 5};
  c.nsa = {.block = 16, .stride = 8, .select_block = 16, .select = 4, .window = 21, .phi = phi};
  c.nsa.kv_branches = branches;
  c.nsa.compress_rope = rope;
  c.rope_theta = rope == CompressRope::kAfter && branches == KvBranches::kSeparate ? 100 : 0;
  Randomize(c, 11);
  return c;
}

std::vector<NsaCase> Cases() {
  return {Case(Phi::kMlp, KvBranches::kSeparate, CompressRope::kAfter),
          Case(Phi::kLinear, KvBranches::kShared, CompressRope::kBefore),
          Case(Phi::kMean, KvBranches::kSeparate, CompressRope::kBefore)};
}

// The inputs that have a row for every token.
bool HasTokenRows(const std::string& name) { return !name.starts_with("phi"); }

Array Before(const Array& x, int64_t s) {
  return {x.begin(), x.begin() + s * static_cast<int64_t>(x.size()) / kTokens};
}
Array From(const Array& x, int64_t s) { return {x.begin() + s * static_cast<int64_t>(x.size()) / kTokens, x.end()}; }

class Causality : public ::testing::TestWithParam<int64_t> {};

TEST_P(Causality, OutputsBeforeTheChangeAreBitIdentical) {
  const int64_t s = GetParam();
  for (DType dtype : {DType::kF32, DType::kF64}) {
    for (const NsaCase& c : Cases()) {
      NsaCase changed = c;
      for (auto& [name, values] : changed.in.Named()) {
        if (!HasTokenRows(name)) continue;
        for (size_t i = Before(*values, s).size(); i < values->size(); ++i) (*values)[i] = 3 - 2 * (*values)[i];
      }
      const NsaOutputs a = RunForward(CpuMachine(dtype), c), b = RunForward(CpuMachine(dtype), changed);
      EXPECT_TRUE(BitEqual("out", Before(b.out, s), Before(a.out, s)));
      EXPECT_TRUE(BitEqual("scores", Before(b.scores, s), Before(a.scores, s)));
      for (int branch : {kCmp, kSlc, kWin}) {
        EXPECT_TRUE(BitEqual(kBranchNames[branch], Before(b.o[branch], s), Before(a.o[branch], s)));
        EXPECT_TRUE(BitEqual(kBranchNames[branch], Before(b.lse[branch], s), Before(a.lse[branch], s)));
      }
      const auto chosen = s * c.groups * c.nsa.select;
      EXPECT_TRUE(BitEqual("selected", std::vector(b.selected.begin(), b.selected.begin() + chosen),
                           std::vector(a.selected.begin(), a.selected.begin() + chosen)));
      EXPECT_NE(From(b.out, s), From(a.out, s)) << "the change must be felt";
    }
  }
}

TEST_P(Causality, GradientsOfAnEarlierLossAreExactlyZero) {
  const int64_t s = GetParam();
  for (NsaCase c : Cases()) {
    std::fill(c.d_out.begin() + s * c.heads * c.value_width, c.d_out.end(), 0.0);
    for (int branch : {kCmp, kSlc, kWin}) {
      NsaCase alone = c;  // only this branch counts
      for (size_t i = 0; i < alone.in.gates.size(); ++i) alone.in.gates[i] = i % 3 == static_cast<size_t>(branch);
      NsaArrays gradients = RunBoth(CpuMachine(DType::kF64), alone).gradients;
      for (auto& [name, values] : gradients.Named()) {
        if (!HasTokenRows(name)) continue;
        for (double x : From(*values, s)) ASSERT_EQ(x, 0.0) << name << " of branch " << kBranchNames[branch];
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(ChangedFrom, Causality, ::testing::Values(1, 15, 16, 17, 31, 32, 33, 100, 139));

}  // namespace
}  // namespace longspan::test
