// A slice of op(b) of kDepth rows is packed into strips of kStrip columns, which then meet panels of kPanelRows rows of
// op(a): a panel's slice stays in the second cache, a strip's in the first. Every element of c adds its slices one
// after another, and within a slice goes by the order of depth (TileMath): so nothing but its row, b and k decides its
// bits. Bound by the multiply-adds.
#include "kernels/matmul/matmul_cpu.h"

#include <omp.h>

#include <algorithm>

#include "kernels/base/scratch_cpu.h"
#include "kernels/base/tile_math_cpu.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

constexpr int64_t kDepth = 256;
template <typename T>
constexpr int64_t kStrip = 2 * kRowLanes<T>;
constexpr int64_t kPanelRows = 96;
constexpr int64_t kFewRows = 12;
constexpr int64_t kDirectColumns = 1024;
constexpr int64_t kWorthThreads = 1 << 16;  // multiply-adds

// to[strips, depth, kStrip] = b[depth,n], zeros after its last column.
template <typename T>
void PackStrips(const Strided<T>& b, int64_t depth, int64_t n, T* to, bool threads) {
  constexpr int64_t kColumns = kStrip<T>;
#pragma omp parallel for if (threads)
  for (int64_t column = 0; column < n; column += kColumns) {
    T* const strip = to + column * depth;
    const int64_t columns = std::min(kColumns, n - column);
    if (columns < kColumns) std::fill_n(strip, depth * kColumns, T(0));
    const T* const from = b.data + column * b.column;
    if (b.column == 1) {
      for (int64_t p = 0; p < depth; ++p) std::copy_n(from + p * b.row, columns, strip + p * kColumns);
    } else {
      for (int64_t j = 0; j < columns; ++j) {
        for (int64_t p = 0; p < depth; ++p) strip[p * kColumns + j] = from[p * b.row + j * b.column];
      }
    }
  }
}

// c[rows,n] += a[rows,depth] b; rows of c are c_row apart.
template <typename T>
void AddPanel(const TileMath<T>& math, Strided<T> a, const T* strips, T* c, int64_t c_row, int64_t rows, int64_t n,
              int64_t depth) {
  constexpr int64_t kColumns = kStrip<T>;
  static thread_local Scratch<T> a_memory, c_memory;
  if (a.column != 1) {  // each strip reads all of it: rows apart as they are, depths together
    T* const copy = a_memory.Get(depth * rows);
    for (int64_t p = 0; p < depth; ++p) std::copy_n(a.data + p * a.column, rows, copy + p * rows);
    a = {copy, 1, rows};
  }
  for (int64_t column = 0; column < n; column += kColumns) {
    const T* const strip = strips + column * depth;
    const int64_t columns = std::min(kColumns, n - column);
    if (columns == kColumns) {
      math.product({.a = a,
                    .b = strip,
                    .b_row = kColumns,
                    .c = c + column,
                    .c_row = c_row,
                    .rows = rows,
                    .columns = kColumns,
                    .depth = depth,
                    .accumulate = true});
      continue;
    }
    T* const part = c_memory.Get(rows * kColumns);
    math.product({.a = a,
                  .b = strip,
                  .b_row = kColumns,
                  .c = part,
                  .c_row = kColumns,
                  .rows = rows,
                  .columns = kColumns,
                  .depth = depth});
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) c[i * c_row + column + j] += part[i * kColumns + j];
    }
  }
}

}  // namespace

template <typename T>
void MatMulCpu(const MatMulCpuArgs<T>& args) {
  const int64_t m = args.m, n = args.n, k = args.k;
  const bool transpose_a = args.transpose_a, transpose_b = args.transpose_b;
  T* const c = args.c;
  static thread_local Scratch<T> memory;
  if (args.add != nullptr) {
    std::copy_n(args.add, m * n, c);
  } else if (!args.accumulate) {
    std::fill_n(c, m * n, T(0));
  }
  const TileMath<T>& math = TileMathOf<T>();
  const bool threads = !omp_in_parallel() && m * n * k >= kWorthThreads;
  // Few rows are not worth packing b.
  const int64_t direct = m <= kFewRows && !transpose_b ? n / kRowLanes<T> * kRowLanes<T> : 0;
  for (int64_t first = 0; first < k; first += kDepth) {
    const int64_t depth = std::min(kDepth, k - first);
    const Strided<T> a_slice{args.a + first * (transpose_a ? m : 1), transpose_a ? 1 : k, transpose_a ? m : 1};
    const Strided<T> b_slice{args.b + first * (transpose_b ? 1 : n), transpose_b ? 1 : n, transpose_b ? k : 1};
#pragma omp parallel for if (threads)
    for (int64_t column = 0; column < direct; column += kDirectColumns) {
      math.product({.a = a_slice,
                    .b = b_slice.data + column,
                    .b_row = n,
                    .c = c + column,
                    .c_row = n,
                    .rows = m,
                    .columns = std::min(kDirectColumns, direct - column),
                    .depth = depth,
                    .accumulate = true});
    }
    if (direct == n) continue;
    const int64_t rest = n - direct;
    T* const strips = memory.Get(RoundUp(rest, kStrip<T>) * depth);
    PackStrips({b_slice.data + direct, b_slice.row, b_slice.column}, depth, rest, strips, threads);
#pragma omp parallel for schedule(dynamic) if (threads)
    for (int64_t row = 0; row < m; row += kPanelRows) {
      const Strided<T> panel{a_slice.data + row * a_slice.row, a_slice.row, a_slice.column};
      AddPanel(math, panel, strips, c + row * n + direct, n, std::min(kPanelRows, m - row), rest, depth);
    }
  }
}

template void MatMulCpu<float>(const MatMulCpuArgs<float>&);
template void MatMulCpu<double>(const MatMulCpuArgs<double>&);

}  // namespace longspan
