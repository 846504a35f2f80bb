// The attention operations, forward and backward, at 64k tokens in both types.
#include <gtest/gtest.h>

#include "tests/kernels/attention/sampled_gpu_case.h"

namespace longspan::test {
namespace {

constexpr int64_t kTokens = 65536 + 5;

std::vector<BranchCase> Cases() {
  const std::vector<Segment> samples = Samples({{0, 35}, {30011, 30030}, {65510, kTokens}});
  std::vector<BranchCase> cases = {{.heads = 16, .groups = 1, .key_width = 64, .value_width = 64},
                                   {.heads = 8, .groups = 2, .key_width = 128, .value_width = 128},
                                   {.heads = 2, .groups = 2, .key_width = 192, .value_width = 128}};
  for (const auto& [heads, width] : {std::pair(4, 64), std::pair(2, 128)}) {
    cases.push_back({.dtype = DType::kF32, .heads = heads, .groups = 2, .key_width = width, .value_width = width});
  }
  for (BranchCase& c : cases) {
    c.tokens = kTokens;
    c.segments = samples;
  }
  return cases;
}

TEST(LongGpu, Branches) {
  for (const BranchCase& c : Cases()) {
    for (const Branch branch : {kCmp, kSlc, kWin}) ExpectSampledBranch(branch, c);
  }
}

TEST(LongGpu, DenseAttention) {
  BranchCase c{.tokens = kTokens, .heads = 4, .groups = 1, .key_width = 128, .value_width = 128};
  c.nsa.window = kTokens;
  c.segments = Samples({{0, 16}, {30011, 30020}, {65530, kTokens}});
  ExpectSampledBranch(kWin, c);
}

TEST(LongGpu, Select) {
  for (const BranchCase& c : Cases()) ExpectSampledChoice(c);
}

TEST(LongGpu, Combine) {
  for (const BranchCase& c : Cases()) ExpectSampledCombine(c);
}

TEST(LongGpu, Compress) {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    for (const Phi phi : {Phi::kMlp, Phi::kLinear, Phi::kMean}) {
      ExpectSampledCompress({.dtype = dtype,
                             .phi = phi,
                             .tokens = kTokens,
                             .groups = 2,
                             .width = 128,
                             .hidden = 256,
                             .segments = Samples({{0, 48}, {30016, 30048}, {65488, 65536}})});
    }
  }
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return longspan::GpuCount() == 0 ? 77 : RUN_ALL_TESTS();
}
