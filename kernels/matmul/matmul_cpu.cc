// A slice of op(b) of kDepth rows is packed into strips of kStrip columns, which then meet panels of kPanelRows rows of
// op(a): a panel's slice stays in the second cache, a strip's in the first. Every element of c adds its slices one
// after another, and within a slice goes by the order of depth (TileMath): so nothing but its row, b and k decides its
// bits. Bound by the multiply-adds.
#include "kernels/matmul/matmul_cpu.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

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

// to[p*kStrip+j] = from[p+j*column]. Floats go by four of both, which takes half the time.
template <typename T>
void PackTransposed(const T* from, int64_t column, int64_t depth, int64_t columns, T* to) {
  int64_t deep = 0, wide = 0;  // what went by fours
  if constexpr (std::is_same_v<T, float>) {
    using Four = float __attribute__((vector_size(16)));
    deep = depth / 4 * 4;
    wide = columns / 4 * 4;
    for (int64_t p = 0; p < deep; p += 4) {
      for (int64_t j = 0; j < wide; j += 4) {
        const auto load = [&](int64_t i) {
          Four x;
          std::memcpy(&x, from + p + (j + i) * column, sizeof(x));
          return x;
        };
        const auto store = [&](int64_t i, Four x) { std::memcpy(to + (p + i) * kStrip<T> + j, &x, sizeof(x)); };
        const Four x0 = load(0), x1 = load(1), x2 = load(2), x3 = load(3);
        const Four a = __builtin_shufflevector(x0, x1, 0, 4, 1, 5), b = __builtin_shufflevector(x0, x1, 2, 6, 3, 7);
        const Four c = __builtin_shufflevector(x2, x3, 0, 4, 1, 5), d = __builtin_shufflevector(x2, x3, 2, 6, 3, 7);
        store(0, __builtin_shufflevector(a, c, 0, 1, 4, 5));
        store(1, __builtin_shufflevector(a, c, 2, 3, 6, 7));
        store(2, __builtin_shufflevector(b, d, 0, 1, 4, 5));
        store(3, __builtin_shufflevector(b, d, 2, 3, 6, 7));
      }
    }
  }
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t p = j < wide ? deep : 0; p < depth; ++p) to[p * kStrip<T> + j] = from[p + j * column];
  }
}

// to[strips, depth, kStrip] = b[depth,n], whose rows or columns lie together; zeros after its last column.
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
      PackTransposed(from, b.column, depth, columns, strip);
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

// c[m,n] += a[m,k] b of few rows and a b whose columns lie together, each strip of which is used as soon as it is
// packed: b is read once, and nothing of its size is written.
template <typename T>
void AddFewRows(const TileMath<T>& math, const Strided<T>& a, const Strided<T>& b, T* c, int64_t m, int64_t n,
                int64_t k, bool threads) {
#pragma omp parallel for if (threads)
  for (int64_t column = 0; column < n; column += kStrip<T>) {
    static thread_local Scratch<T> memory;
    const int64_t columns = std::min(kStrip<T>, n - column);
    for (int64_t first = 0; first < k; first += kDepth) {
      const int64_t depth = std::min(kDepth, k - first);
      T* const strip = memory.Get(kStrip<T> * kDepth);
      PackStrips({b.data + first * b.row + column * b.column, b.row, b.column}, depth, columns, strip, false);
      AddPanel(math, {a.data + first * a.column, a.row, a.column}, strip, c + column, n, m, columns, depth);
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
  if (m <= kFewRows && transpose_b) {
    AddFewRows<T>(math, {args.a, transpose_a ? 1 : k, transpose_a ? m : 1}, {args.b, 1, k}, c, m, n, k, threads);
    return;
  }
  // Few rows are not worth packing b.
  const int64_t direct = m <= kFewRows ? n / kRowLanes<T> * kRowLanes<T> : 0;
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
