// Importance, selection and its hash (contracts in kernels/attention_ops.h).
#pragma once

#include "kernels/attention_ops.h"

namespace longspan {

template <typename T>
void SelectBlocks(const SelectArgs& args);

void HashBlocks(const HashSelectionArgs& args);

}  // namespace longspan
