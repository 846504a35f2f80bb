// Where NSA must coincide with something simpler: dense causal attention, one branch, a longer run's beginning.
#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_run.h"
#include "tests/support/oracle.h"

namespace longspan::test {
namespace {

// One K/V for all branches, everything selected, an endless window.
NsaCase DenseCase(const std::vector<int64_t>& documents) {
  NsaCase c{.heads = 6, .groups = 3, .key_width = 4, .value_width = 7};
  c.nsa = {.block = 8, .stride = 4, .select_block = 16, .select = 7, .window = 1000, .phi = Phi::kMean};
  c.nsa.kv_branches = KvBranches::kShared;
  c.doc_start = PackDocuments(documents, 16);
  c.tokens = static_cast<int64_t>(c.doc_start.size());
  Randomize(c, 5);
  return c;
}

void OnlyBranch(NsaCase& c, int branch) {
  for (size_t i = 0; i < c.in.gates.size(); ++i) c.in.gates[i] = i % 3 == static_cast<size_t>(branch);
}

TEST(Equivalence, AllBlocksSelectedAndEndlessWindowAreDense) {
  for (const auto& documents : {std::vector<int64_t>{101}, std::vector<int64_t>{33, 16, 30}}) {
    const NsaCase c = DenseCase(documents);
    const NsaOutputs y = RunForward(CpuMachine(DType::kF64), c);
    const NsaOutputs dense = Oracle(c);
    EXPECT_TRUE(RmsClose("o_win", y.o[kWin], dense.o[kWin], 1e-13));
    EXPECT_TRUE(RmsClose("o_slc", y.o[kSlc], dense.o[kWin], 1e-13));
    EXPECT_TRUE(RmsClose("lse_slc", y.lse[kSlc], dense.lse[kWin], 1e-13));
  }
}

TEST(Equivalence, GradientsOfAllBlocksSelectedAreThoseOfTheEndlessWindow) {
  NsaCase slc = DenseCase({40, 48}), win = slc;
  OnlyBranch(slc, kSlc);
  OnlyBranch(win, kWin);
  const NsaArrays a = RunBoth(CpuMachine(DType::kF64), slc).gradients;
  const NsaArrays b = RunBoth(CpuMachine(DType::kF64), win).gradients;
  EXPECT_TRUE(RmsClose("d_q", a.q, b.q, 1e-12));
  EXPECT_TRUE(RmsClose("d_k", a.k[0], b.k[0], 1e-12));
  EXPECT_TRUE(RmsClose("d_v", a.v[0], b.v[0], 1e-12));
  EXPECT_GT(Rms(a.k[0]), 0.01);
}

// Blocks of one token with mean pooling are the tokens themselves.
TEST(Equivalence, CompressionByOneIsDense) {
  NsaCase c = DenseCase({50, 33});
  c.nsa.block = c.nsa.stride = 1;
  const NsaResult cmp = [&] {
    OnlyBranch(c, kCmp);
    return RunBoth(CpuMachine(DType::kF64), c);
  }();
  const NsaResult win = [&] {
    OnlyBranch(c, kWin);
    return RunBoth(CpuMachine(DType::kF64), c);
  }();
  EXPECT_TRUE(RmsClose("out", cmp.outputs.out, win.outputs.out, 1e-13));
  EXPECT_TRUE(RmsClose("d_q", cmp.gradients.q, win.gradients.q, 1e-12));
  EXPECT_TRUE(RmsClose("d_k", cmp.gradients.k[0], win.gradients.k[0], 1e-12));
  EXPECT_TRUE(RmsClose("d_v", cmp.gradients.v[0], win.gradients.v[0], 1e-12));
}

TEST(Equivalence, OneGateOpenIsThatBranch) {
  NsaCase c = DenseCase({77});
  c.nsa.select = 3;
  c.nsa.window = 13;
  for (DType dtype : {DType::kF32, DType::kF64}) {
    for (int branch : {kCmp, kSlc, kWin}) {
      OnlyBranch(c, branch);
      const NsaOutputs y = RunForward(CpuMachine(dtype), c);
      EXPECT_EQ(y.out, y.o[branch]) << kBranchNames[branch];
    }
  }
}

// A sequence's beginning does not depend on how it goes on, not even in a bit.
TEST(Equivalence, AShorterSequenceIsThePrefixOfALonger) {
  for (DType dtype : {DType::kF32, DType::kF64}) {
    NsaCase c{.tokens = 203, .heads = 4, .groups = 2, .key_width = 6, .value_width = 5};
    c.nsa = {.block = 8, .stride = 4, .select_block = 16, .select = 4, .window = 21};
    Randomize(c, 9);
    const NsaOutputs whole = RunForward(CpuMachine(dtype), c);
    for (int64_t tokens : {1, 7, 8, 64, 129, 150}) {
      NsaCase part = c;
      part.tokens = tokens;
      auto cut = [&](const Array& x) {
        return Array(x.begin(), x.begin() + static_cast<int64_t>(x.size()) / c.tokens * tokens);
      };
      for (auto& [name, values] : part.in.Named()) {
        if (!name.starts_with("phi")) *values = cut(*values);
      }
      part.d_out = cut(c.d_out);
      const NsaOutputs y = RunForward(CpuMachine(dtype), part);
      EXPECT_TRUE(BitEqual("out", y.out, cut(whole.out))) << tokens << " tokens";
      EXPECT_TRUE(BitEqual("scores", y.scores, cut(whole.scores))) << tokens << " tokens";
    }
  }
}

}  // namespace
}  // namespace longspan::test
