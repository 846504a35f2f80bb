// Why a row of c meets the same additions wherever it stands: our row-major c is Eigen's column-major c^T, so our rows
// are the columns of Eigen's product, which its kernel takes in groups of four, each group alike. Only leftover
// columns, vectors and tiny products take other paths. Rows are therefore always given in multiples of kRowGroup, the
// last group padded with zeros, and products that Eigen calls vectors or tiny go through plain loops, by n and k alone.
// How Eigen blocks k depends on k and the cache; how it blocks rows and n moves whole groups and so changes no sum.
#include "kernels/matmul/matmul_cpu.h"

#include <omp.h>

#include <Eigen/Core>
#include <algorithm>
#include <vector>

namespace longspan {
namespace {

constexpr int64_t kRowGroup = 8;
constexpr int64_t kPanelRows = 512;         // one thread's unit of work; op(b) is packed once for each
constexpr int64_t kTiny = 12;               // n + k below this: Eigen might take its path for tiny products
constexpr int64_t kWorthThreads = 1 << 16;  // multiply-adds

static_assert(kRowGroup % Eigen::internal::gebp_traits<float, float>::nr == 0);
static_assert(kRowGroup % Eigen::internal::gebp_traits<double, double>::nr == 0);
static_assert(kRowGroup + kTiny >= EIGEN_GEMM_TO_COEFFBASED_THRESHOLD);

template <typename T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
template <typename T>
using View = Eigen::Map<const Matrix<T>, Eigen::Unaligned, Eigen::OuterStride<>>;

// c[rows,n] += a b for a multiple of kRowGroup rows; `a_stride` is the distance of a's stored rows.
template <typename T>
void AddPanel(const T* a, int64_t a_stride, const T* b, T* c, int64_t rows, int64_t n, int64_t k, bool transpose_a,
              bool transpose_b) {
  const View<T> a_t(a, transpose_a ? rows : k, transpose_a ? k : rows, Eigen::OuterStride<>(a_stride));
  const View<T> b_t(b, transpose_b ? k : n, transpose_b ? n : k, Eigen::OuterStride<>(transpose_b ? k : n));
  Eigen::Map<Matrix<T>> c_t(c, n, rows);
  const auto add = [&](const auto& left) {
    if (transpose_a) {
      c_t.noalias() += left * a_t.transpose();
    } else {
      c_t.noalias() += left * a_t;
    }
  };
  if (transpose_b) {
    add(b_t.transpose());
  } else {
    add(b_t);
  }
}

// The rows after the last whole group, padded with zeros to one group.
template <typename T>
void AddLastRows(const T* a, int64_t row_stride, int64_t depth_stride, const T* b, T* c, int64_t rows, int64_t n,
                 int64_t k, bool transpose_b) {
  static thread_local std::vector<T> scratch;
  scratch.assign(kRowGroup * (k + n), T(0));
  T* const a_rows = scratch.data();
  T* const c_rows = a_rows + kRowGroup * k;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t p = 0; p < k; ++p) a_rows[i * k + p] = a[i * row_stride + p * depth_stride];
  }
  std::copy_n(c, rows * n, c_rows);
  AddPanel(a_rows, k, b, c_rows, kRowGroup, n, k, false, transpose_b);
  std::copy_n(c_rows, rows * n, c);
}

template <typename T>
void AddTiny(const T* a, int64_t row_stride, int64_t depth_stride, const T* b, T* c, int64_t m, int64_t n, int64_t k,
             bool transpose_b) {
  const int64_t b_row = transpose_b ? 1 : n;
  const int64_t b_column = transpose_b ? k : 1;
#pragma omp parallel for if (m * n * k > kWorthThreads)
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      T sum = 0;
      for (int64_t p = 0; p < k; ++p) sum += a[i * row_stride + p * depth_stride] * b[p * b_row + j * b_column];
      c[i * n + j] += sum;
    }
  }
}

}  // namespace

template <typename T>
void MatMulCpu(const T* a, const T* b, T* c, int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b,
               bool accumulate) {
  if (!accumulate) std::fill_n(c, m * n, T(0));
  if (m == 0 || n == 0 || k == 0) return;
  const int64_t row_stride = transpose_a ? 1 : k;
  const int64_t depth_stride = transpose_a ? m : 1;
  if (n == 1 || n + k < kTiny) {
    AddTiny(a, row_stride, depth_stride, b, c, m, n, k, transpose_b);
    return;
  }
  const int64_t threads = omp_in_parallel() || m * n * k < kWorthThreads ? 1 : omp_get_max_threads();
  const int64_t share = (m + threads - 1) / threads;
  const int64_t panel = std::min(kPanelRows, (share + kRowGroup - 1) / kRowGroup * kRowGroup);
#pragma omp parallel for schedule(dynamic) if (threads > 1)
  for (int64_t row = 0; row < m; row += panel) {
    const int64_t rows = std::min(panel, m - row);
    const int64_t whole = rows / kRowGroup * kRowGroup;
    if (whole > 0) {
      AddPanel(a + row * row_stride, transpose_a ? m : k, b, c + row * n, whole, n, k, transpose_a, transpose_b);
    }
    if (whole < rows) {
      const int64_t first = row + whole;
      AddLastRows(a + first * row_stride, row_stride, depth_stride, b, c + first * n, rows - whole, n, k, transpose_b);
    }
  }
}

template void MatMulCpu<float>(const float*, const float*, float*, int64_t, int64_t, int64_t, bool, bool, bool);
template void MatMulCpu<double>(const double*, const double*, double*, int64_t, int64_t, int64_t, bool, bool, bool);

}  // namespace longspan
