// Numerical behaviour: large logits, the same bits twice and on any number of threads, gradients that accumulate.
#include <gtest/gtest.h>
#include <omp.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "tests/support/compare.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_compare.h"
#include "tests/support/nsa_run.h"
#include "tests/support/oracle.h"

namespace longspan::test {
namespace {

NsaCase Case() {
  NsaCase c{.tokens = 230, .heads = 8, .groups = 2, .key_width = 16, .value_width = 12};
  c.nsa = {.block = 16, .stride = 8, .select_block = 16, .select = 5, .window = 50};
  c.rope_theta = 10000;
  c.doc_start = PackDocuments({90, 134}, 16);
  Randomize(c, 51);
  return c;
}

class LargeLogits : public ::testing::TestWithParam<double> {};

TEST_P(LargeLogits, StayFinite) {
  NsaCase c = Case();
  for (double& x : c.in.q) x *= GetParam();
  for (DType dtype : {DType::kF32, DType::kF64}) {
    NsaResult y = RunBoth(CpuMachine(dtype), c);
    EXPECT_TRUE(AllFinite("out", y.outputs.out));
    EXPECT_TRUE(AllFinite("scores", y.outputs.scores));
    for (auto& [name, values] : y.gradients.Named()) EXPECT_TRUE(AllFinite("d_" + name, *values));
    // An error of one unit in a logit of 1000 is 6e-5 in fp32.
    const double tolerance = dtype == DType::kF64 ? 1e-11 : 1e-5 * GetParam();
    EXPECT_TRUE(RmsClose("out", y.outputs.out, Oracle(c, &y.outputs.selected).out, tolerance));
  }
}

INSTANTIATE_TEST_SUITE_P(Times, LargeLogits, ::testing::Values(1, 30, 100, 1000));

// A NaN among the inputs, be it an operation's result or memory never written (0xFF bytes), shows in the output of the
// token's branches, and leaves a valid choice.
TEST(NotANumber, IsNotHidden) {
  constexpr int64_t kToken = 100;
  for (const double nan : {std::numeric_limits<double>::quiet_NaN(), std::bit_cast<double>(~uint64_t{0})}) {
    for (DType dtype : {DType::kF32, DType::kF64}) {
      for (const char* input : {"q", "k_win", "v_win", "k_slc", "v_slc", "k_cmp", "v_cmp"}) {
        NsaCase c = Case();
        for (auto& [name, values] : c.in.Named()) {
          const auto width = static_cast<int64_t>(values->size()) / c.tokens;
          if (name == input) std::fill_n(values->begin() + kToken * width, width, nan);
        }
        const NsaOutputs y = RunForward(CpuMachine(dtype), c);
        // Every summary that token 100 enters is seen 16 tokens later.
        const int64_t t = std::string(input).ends_with("cmp") ? kToken + 16 : kToken;
        for (int64_t i = t * c.heads * c.value_width; i < (t + 1) * c.heads * c.value_width; ++i) {
          ASSERT_TRUE(std::isnan(y.out[i])) << input << " " << DTypeName(dtype) << ": found " << y.out[i];
        }
        for (int32_t block : y.selected) ASSERT_TRUE(block >= -1 && block < c.blocks()) << input << ": " << block;
      }
    }
  }
}

void ExpectSameRun(const NsaResult& found, const NsaResult& expected) {
  ExpectSameBits(found.outputs, expected.outputs);
  ExpectSameBits(found.gradients, expected.gradients);
}

TEST(Bits, RunTwiceIsTheSame) {
  ExpectSameRun(RunBoth(CpuMachine(DType::kF32), Case()), RunBoth(CpuMachine(DType::kF32), Case()));
}

TEST(Bits, DoNotDependOnTheNumberOfThreads) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const NsaResult one = RunBoth(CpuMachine(DType::kF32), Case());
  omp_set_num_threads(3);
  const NsaResult three = RunBoth(CpuMachine(DType::kF32), Case());
  omp_set_num_threads(threads);
  ExpectSameRun(three, one);
}

TEST(Gradients, Fp32IsFp64) {
  const NsaCase c = Case();
  const std::vector<int32_t> selected = RunForward(CpuMachine(DType::kF64), c).selected;
  ExpectGradientsClose(RunBoth(CpuMachine(DType::kF32), c, &selected).gradients,
                       RunBoth(CpuMachine(DType::kF64), c, &selected).gradients, 1e-5);
}

// Whatever the gradients held before is still in them; those of the gates are overwritten.
TEST(Gradients, AreAddedToWhatWasThere) {
  NsaOperator nsa(CpuMachine(DType::kF64), Case());
  nsa.Forward();
  nsa.StartGradients(0);
  nsa.Backward();
  NsaArrays expected = nsa.Gradients();
  nsa.StartGradients(1);
  nsa.Backward();
  NsaArrays found = nsa.Gradients();
  auto a = found.Named(), b = expected.Named();
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].first != "gates") {
      for (double& x : *b[i].second) x += 1;
    }
    EXPECT_TRUE(RmsClose("d_" + a[i].first, *a[i].second, *b[i].second, 1e-14));
  }
}

}  // namespace
}  // namespace longspan::test
