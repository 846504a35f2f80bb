// Rows into pages (contract in kernels/attention/ops.h).
#pragma once

#include "kernels/attention/ops.h"

namespace longspan {

void StoreRows(const StoreArgs& args);

}  // namespace longspan
