// Long sequences on a GPU against the CPU reference in F64 on sampled queries: the GPU runs the whole sequence, the CPU
// a few short segments of it against the same keys. Backward, d_o is 0 but in the sampled rows, so that the gradients
// of all keys and weights come from those alone. Outputs start as NaN, gradients from a value that must stay in the
// sum.
//
// A case's `segments` are the samples, their rows one after another (Samples).
#pragma once

#include <utility>
#include <vector>

#include "tests/kernels/attention/branch_gpu_case.h"
#include "tests/kernels/attention/compress_gpu_case.h"

namespace longspan::test {

// Of the tokens [begin, end) of each pair.
std::vector<Segment> Samples(const std::vector<std::pair<int64_t, int64_t>>& spans);

// Forward and backward of a branch, of the combination, of compression (samples in multiples of the stride).
void ExpectSampledBranch(Branch branch, const BranchCase& c);
void ExpectSampledCombine(const BranchCase& c);
void ExpectSampledCompress(const CompressCase& c);

void ExpectSampledChoice(const BranchCase& c);

}  // namespace longspan::test
