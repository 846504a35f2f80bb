// Every attention operation, forward and backward, on tensors of more than 2^31 elements.
#include <gtest/gtest.h>
#include <omp.h>

#include "tests/kernels/attention/sampled_gpu_case.h"

namespace longspan::test {
namespace {

// q [T,H,K] passes 2^31 elements at token 174762, o [T,H,V] at 262144.
BranchCase Large() {
  return {.tokens = 262144 + 64,
          .heads = 64,
          .groups = 4,
          .key_width = 192,
          .value_width = 128,
          .segments = Samples({{0, 48}, {131040, 131072}, {174752, 174784}, {262112, 262208}})};
}

TEST(LargeGpu, Compressed) { ExpectSampledBranch(kCmp, Large()); }
TEST(LargeGpu, Selected) { ExpectSampledBranch(kSlc, Large()); }
TEST(LargeGpu, Window) { ExpectSampledBranch(kWin, Large()); }
TEST(LargeGpu, Select) { ExpectSampledChoice(Large()); }
TEST(LargeGpu, Combine) { ExpectSampledCombine(Large()); }

// As many groups as heads, so that x is as large as q.
TEST(LargeGpu, Compress) {
  const BranchCase c = Large();
  for (const Phi phi : {Phi::kMlp, Phi::kMean}) {
    ExpectSampledCompress({.phi = phi,
                           .tokens = c.tokens,
                           .groups = c.heads,
                           .width = c.key_width,
                           .hidden = 2 * c.key_width,
                           .segments = c.segments});
  }
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (longspan::GpuCount() == 0) return 77;
  omp_set_num_threads(omp_get_num_procs());  // billions of random values
  return RUN_ALL_TESTS();
}
