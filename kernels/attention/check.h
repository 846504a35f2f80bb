// What the attention launchers ask of their arguments.
#pragma once

#include "kernels/attention/ops.h"
#include "kernels/base/arguments.h"

namespace longspan {

// On a GPU lse, scores and the gradients that accumulate are F32 whatever the call's type (SumType).
//
// Each returns the floating type of the call or throws Error naming `operation` and the argument.
DType CheckBranch(const Operation& operation, const BranchArgs& args);
DType CheckBranchGradient(const Operation& operation, const BranchArgs& args, const BranchGradient& gradient);
DType CheckSelect(const Operation& operation, const SelectArgs& args);
DType CheckCompress(const Operation& operation, const CompressArgs& args);
DType CheckCompressGradient(const Operation& operation, const CompressArgs& args, const CompressGradient& gradient);
DType CheckCombine(const Operation& operation, const CombineArgs& args);
DType CheckCombineGradient(const Operation& operation, const CombineArgs& args, const CombineGradient& gradient);
void CheckSelected(const Operation& operation, const SelectedArgs& args);
void CheckBlockAndStride(const Operation& operation, int64_t block, int64_t stride);
void CheckStore(const Operation& operation, const StoreArgs& args);
void CheckHashSelection(const Operation& operation, const HashSelectionArgs& args);

}  // namespace longspan
