// Importance, selection and its hash (contracts in kernels/attention/ops.h).
#pragma once

#include "kernels/attention/ops.h"

namespace longspan {

template <typename T>
void SelectBlocks(const SelectArgs& args);

void HashBlocks(const HashSelectionArgs& args);

}  // namespace longspan
