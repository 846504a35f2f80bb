// Matrix products of the CPU reference.
#pragma once

#include <cstdint>

namespace longspan {

// c[m,n] = op(a)[m,k] op(b)[k,n], all row-major and contiguous.
template <typename T>
struct MatMulCpuArgs {
  const T* a;
  const T* b;
  T* c;
  int64_t m, n, k;
  bool transpose_a = false;  // a lies in memory as [k,m]
  bool transpose_b = false;  // b lies in memory as [n,k]
  bool accumulate = false;   // c += instead
  const T* add = nullptr;    // [m,n], what the product is added to instead; not c
};

// For float and double. The bits of a row of c depend on that row of op(a) (and of what it is added to), on b, n and k
// alone: not on m, on the row's place, on the number of threads or on memory alignment. So a token's result is the same
// however a sequence is split over ranks. May be called from within a parallel region; then it uses one thread.
template <typename T>
void MatMulCpu(const MatMulCpuArgs<T>& args);

}  // namespace longspan
