// Rows added by index, in ascending order of the entries, without atomics: entries are sorted by their row
// (stably), then each row has one owner, who walks through its entries.
#pragma once

#include "runtime/gpu.h"
#include "runtime/tensor.h"

namespace longspan {

// to[index[i]] += from[i], sums in F32. `to` has `rows` rows of `width`; types F32 or BF16. index[i] in [0,rows);
// others are skipped and reported as faults of this kind.
void AddRowsInOrder(Stream& stream, GpuScratch& scratch, const Tensor& from, const Tensor& index, const Tensor& to,
                    int64_t rows, int64_t width, GpuFault kind);

}  // namespace longspan
