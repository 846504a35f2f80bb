// MatMulCpu against plain fp64 sums, and its promise on bits: a row of the result depends on its own row alone.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/matmul/matmul_cpu.h"

namespace longspan {
namespace {

template <typename T>
std::vector<T> Random(int64_t count, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(normal(random));
  return values;
}

template <typename T>
std::vector<T> Transposed(const std::vector<T>& x, int64_t rows, int64_t columns) {
  std::vector<T> y(x.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) y[j * rows + i] = x[i * columns + j];
  }
  return y;
}

template <typename T>
bool SameBits(const T* x, const T* y, int64_t count) {
  return std::memcmp(x, y, count * sizeof(T)) == 0;
}

int64_t Between(int64_t low, int64_t high, std::mt19937_64& random) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

template <typename T>
class MatMulTest : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(MatMulTest, Types);

TYPED_TEST(MatMulTest, EqualsPlainSums) {
  using T = TypeParam;
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    const int64_t limit = round % 3 == 0 ? 6 : 70;
    const int64_t m = Between(1, limit, random), n = Between(1, limit, random), k = Between(1, 3 * limit, random);
    const std::vector<T> a = Random<T>(m * k, random), b = Random<T>(k * n, random), start = Random<T>(m * n, random);
    for (int mode = 0; mode < 8; ++mode) {
      const bool transpose_a = mode & 1, transpose_b = mode & 2, accumulate = mode & 4;
      std::vector<T> c(m * n, std::numeric_limits<T>::quiet_NaN());
      if (accumulate) c = start;
      const std::vector<T> stored_a = transpose_a ? Transposed(a, m, k) : a;
      const std::vector<T> stored_b = transpose_b ? Transposed(b, k, n) : b;
      MatMulCpu<T>({.a = stored_a.data(),
                    .b = stored_b.data(),
                    .c = c.data(),
                    .m = m,
                    .n = n,
                    .k = k,
                    .transpose_a = transpose_a,
                    .transpose_b = transpose_b,
                    .accumulate = accumulate});
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          double sum = accumulate ? start[i * n + j] : 0;
          double scale = std::abs(sum) + 1;
          for (int64_t p = 0; p < k; ++p) {
            sum += double{a[i * k + p]} * double{b[p * n + j]};
            scale += std::abs(double{a[i * k + p]} * double{b[p * n + j]});
          }
          ASSERT_NEAR(c[i * n + j], sum, 4 * std::numeric_limits<T>::epsilon() * scale)
              << m << "x" << n << "x" << k << " mode " << mode << " at " << i << "," << j;
        }
      }
    }
  }
}

// Adding another matrix gives the bits of adding to its copy.
TYPED_TEST(MatMulTest, AddsAnotherMatrix) {
  using T = TypeParam;
  std::mt19937_64 random(4);
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 5, 7}, {13, 70, 300}, {100, 33, 700}, {4, 6, 0}}) {
    const std::vector<T> a = Random<T>(m * k, random), b = Random<T>(k * n, random), add = Random<T>(m * n, random);
    std::vector<T> expected = add, c(m * n, std::numeric_limits<T>::quiet_NaN());
    MatMulCpu<T>({.a = a.data(), .b = b.data(), .c = expected.data(), .m = m, .n = n, .k = k, .accumulate = true});
    MatMulCpu<T>({.a = a.data(), .b = b.data(), .c = c.data(), .m = m, .n = n, .k = k, .add = add.data()});
    EXPECT_TRUE(SameBits(c.data(), expected.data(), m * n));
  }
}

TYPED_TEST(MatMulTest, EmptyDepthGivesZeros) {
  std::vector<TypeParam> c(6, 7);
  MatMulCpu<TypeParam>({.a = nullptr, .b = nullptr, .c = c.data(), .m = 2, .n = 3, .k = 0, .accumulate = true});
  EXPECT_EQ(c, std::vector<TypeParam>(6, 7));
  MatMulCpu<TypeParam>({.a = nullptr, .b = nullptr, .c = c.data(), .m = 2, .n = 3, .k = 0});
  EXPECT_EQ(c, std::vector<TypeParam>(6, 0));
}

// Any subset of rows, in any order, from any address, with any number of threads: the same bits.
TYPED_TEST(MatMulTest, BitsOfARowDependOnItAlone) {
  using T = TypeParam;
  std::mt19937_64 random(2);
  const int64_t threads = omp_get_max_threads();
  for (int round = 0; round < 300; ++round) {
    const int64_t m = Between(1, 300, random);
    const int64_t n = round % 5 == 0 ? Between(1, 6, random) : Between(1, 150, random);
    const int64_t k = round % 7 == 0 ? Between(1, 12, random) : Between(1, round % 11 == 0 ? 1500 : 200, random);
    const bool transpose_b = round % 2 == 0;
    const bool accumulate = round % 3 == 0;
    const std::vector<T> a = Random<T>(m * k, random), b = Random<T>(k * n, random), start = Random<T>(m * n, random);
    std::vector<T> whole = start;
    omp_set_num_threads(round % 4 == 0 ? 2 : 1);
    MatMulCpu<T>({.a = a.data(),
                  .b = b.data(),
                  .c = whole.data(),
                  .m = m,
                  .n = n,
                  .k = k,
                  .transpose_b = transpose_b,
                  .accumulate = accumulate});

    const int64_t count = Between(1, m, random);
    const int64_t shift_a = Between(0, 17, random), shift_b = Between(0, 17, random), shift_c = Between(0, 17, random);
    std::vector<T> some_a(count * k + shift_a), some_c(count * n + shift_c), moved_b(shift_b);
    moved_b.insert(moved_b.end(), b.begin(), b.end());
    std::vector<int64_t> rows(count);
    for (int64_t i = 0; i < count; ++i) {
      rows[i] = Between(0, m - 1, random);
      std::copy_n(&a[rows[i] * k], k, &some_a[shift_a + i * k]);
      std::copy_n(&start[rows[i] * n], n, &some_c[shift_c + i * n]);
    }
    omp_set_num_threads(round % 4 == 1 ? 3 : 1);
    MatMulCpu<T>({.a = some_a.data() + shift_a,
                  .b = moved_b.data() + shift_b,
                  .c = some_c.data() + shift_c,
                  .m = count,
                  .n = n,
                  .k = k,
                  .transpose_b = transpose_b,
                  .accumulate = accumulate});
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_TRUE(SameBits(&whole[rows[i] * n], &some_c[shift_c + i * n], n))
          << m << "x" << n << "x" << k << ": row " << rows[i] << " alone as row " << i << " of " << count;
    }
  }
  omp_set_num_threads(threads);
}

// Wide and long enough that every dimension is cut.
TYPED_TEST(MatMulTest, BitsHoldForLargeProducts) {
  using T = TypeParam;
  std::mt19937_64 random(3);
  struct Size {
    int64_t m, n, k;
  };
  for (const Size size : {Size{1100, 515, 700}, Size{600, 2000, 97}, Size{2100, 64, 64}, Size{700, 17, 2500}}) {
    const auto [m, n, k] = size;
    const std::vector<T> a = Random<T>(m * k, random), b = Random<T>(k * n, random);
    std::vector<T> whole(m * n);
    MatMulCpu<T>({.a = a.data(), .b = b.data(), .c = whole.data(), .m = m, .n = n, .k = k});
    for (const int64_t count : {1, 7, 8, 33, 300}) {
      const int64_t first = Between(0, m - count, random);
      std::vector<T> part(count * n);
      MatMulCpu<T>({.a = a.data() + first * k, .b = b.data(), .c = part.data(), .m = count, .n = n, .k = k});
      ASSERT_TRUE(SameBits(&whole[first * n], part.data(), count * n)) << m << "x" << n << "x" << k << ": " << count;
    }
  }
}

TYPED_TEST(MatMulTest, WeightGradientDoesNotDependOnThreads) {
  using T = TypeParam;
  std::mt19937_64 random(4);
  const int64_t threads = omp_get_max_threads();
  const int64_t tokens = 777, in = 131, out = 45;
  const std::vector<T> x = Random<T>(tokens * in, random), dy = Random<T>(tokens * out, random);
  const std::vector<T> start = Random<T>(in * out, random);
  std::vector<T> reference;
  for (const int count : {1, 2, 3, 5}) {
    omp_set_num_threads(count);
    std::vector<T> dw = start;
    MatMulCpu<T>({.a = x.data(),
                  .b = dy.data(),
                  .c = dw.data(),
                  .m = in,
                  .n = out,
                  .k = tokens,
                  .transpose_a = true,
                  .accumulate = true});
    if (reference.empty()) reference = dw;
    EXPECT_TRUE(SameBits(reference.data(), dw.data(), in * out)) << count << " threads";
  }
  omp_set_num_threads(threads);
}

}  // namespace
}  // namespace longspan
