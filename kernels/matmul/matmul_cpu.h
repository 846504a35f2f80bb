// Matrix products of the CPU reference.
#pragma once

#include <cstdint>

namespace longspan {

// c[m,n] = op(a)[m,k] op(b)[k,n], or c += with `accumulate`; all row-major and contiguous, float or double. A
// transposed operand lies in memory as [k,m] or [n,k].
//
// The bits of a row of c depend on that row of op(a) (and of c), on b, n and k alone: not on m, on the row's place, on
// the number of threads or on memory alignment. So a token's result is the same however a sequence is split over ranks.
// May be called from within a parallel region; then it uses one thread.
template <typename T>
void MatMulCpu(const T* a, const T* b, T* c, int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b,
               bool accumulate);

}  // namespace longspan
