// The gated sum of the three branches (contracts in kernels/attention/ops.h).
#pragma once

#include "kernels/attention/ops.h"

namespace longspan {

template <typename T>
void CombineBranches(const CombineArgs& args);

template <typename T>
void CombineBranchesBackward(const CombineArgs& args, const CombineGradient& gradient);

}  // namespace longspan
