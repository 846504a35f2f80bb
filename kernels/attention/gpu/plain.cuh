// The plain kernels: any width up to kMaxWidthGpu, without tensor cores, for checking. plain.cu has their set.
#pragma once

#include "kernels/attention/gpu/backward.cuh"

namespace longspan {

struct SelectParams;

// F32, both. Overwrites o and lse.
template <typename Sight>
void BranchForwardF32(cudaStream_t stream, const BranchParams<Sight>& params);
// Adds. The lists are those of the selected branch.
template <typename Sight>
void BranchBackwardF32(cudaStream_t stream, const BackwardParams<Sight>& params, const SelectionLists& lists);

void SelectPlain(cudaStream_t stream, const char* operation, const SelectParams& params);  // F32 and BF16

}  // namespace longspan
