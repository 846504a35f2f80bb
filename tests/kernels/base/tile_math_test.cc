// The inner loops of the CPU's kernels, in every width of vectors that this processor has.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/base/tile_math_cpu.h"

namespace longspan {
namespace {

float ExpOf(const TileMath<float>& math, float x) {
  std::vector<float> row(kRowLanes<float>, x);
  math.exp(row.data(), std::ssize(row), 0);
  return row[0];
}

TEST(TileMath, ExpIsWithinTwoUlp) {
  for (const TileMath<float>* math : AllTileMath<float>()) {
    for (float x = -87; x <= 1; x += 0.0037f) {
      const double expected = std::exp(static_cast<double>(x));
      ASSERT_NEAR(ExpOf(*math, x), expected, 2 * expected * 6e-8) << x << ", " << math->vector_bits << " bits";
    }
  }
}

TEST(TileMath, ExpAtTheEdges) {
  for (const TileMath<float>* math : AllTileMath<float>()) {
    EXPECT_EQ(ExpOf(*math, 0), 1);
    EXPECT_EQ(ExpOf(*math, -std::numeric_limits<float>::infinity()), 0);
    EXPECT_EQ(ExpOf(*math, -1000), 0);
    EXPECT_EQ(ExpOf(*math, -1e30f), 0);
    for (uint32_t bits : {0x7FC00000u, 0xFFC00000u, 0xFFFFFFFFu, 0x7FC000FFu}) {
      EXPECT_TRUE(std::isnan(ExpOf(*math, std::bit_cast<float>(bits)))) << bits;
    }
  }
}

template <typename T>
class TileMathTest : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(TileMathTest, Types);

template <typename T>
std::vector<T> Random(int64_t count, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(normal(random));
  return values;
}

template <typename T>
bool SameBits(const std::vector<T>& x, const std::vector<T>& y) {
  return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0;
}

// What the header promises, element by element: one fused multiply-add a term, the sum from zero, then stored or added.
TYPED_TEST(TileMathTest, ProductIsAChainOfFusedMultiplyAdds) {
  using T = TypeParam;
  std::mt19937_64 random(1);
  for (const int64_t rows : {1, 2, 3, 5, 6, 8, 13, 25}) {
    for (const int64_t vectors : {1, 2, 3, 5, 9}) {
      for (const int64_t depth : {1, 6, 77}) {
        const int64_t columns = vectors * kRowLanes<T>;
        const std::vector<T> a = Random<T>(rows * depth, random), b = Random<T>(depth * columns, random);
        const std::vector<T> start = Random<T>(rows * columns, random);
        for (const bool accumulate : {true, false}) {
          for (const bool transposed : {true, false}) {
            const Strided<T> a_rows{a.data(), transposed ? 1 : depth, transposed ? rows : 1};
            std::vector<T> expected = start;
            for (int64_t i = 0; i < rows; ++i) {
              for (int64_t j = 0; j < columns; ++j) {
                T sum = 0;
                for (int64_t p = 0; p < depth; ++p) {
                  sum = std::fma(a_rows.data[i * a_rows.row + p * a_rows.column], b[p * columns + j], sum);
                }
                expected[i * columns + j] = accumulate ? expected[i * columns + j] + sum : sum;
              }
            }
            for (const TileMath<T>* math : AllTileMath<T>()) {
              std::vector<T> c = start;
              math->product({.a = a_rows,
                             .b = b.data(),
                             .b_row = columns,
                             .c = c.data(),
                             .c_row = columns,
                             .rows = rows,
                             .columns = columns,
                             .depth = depth,
                             .accumulate = accumulate});
              ASSERT_TRUE(SameBits(c, expected)) << rows << "x" << columns << "x" << depth << ", " << math->vector_bits
                                                 << " bits, accumulate " << accumulate;
            }
          }
        }
      }
    }
  }
}

TYPED_TEST(TileMathTest, RowsHaveTheBitsOfEveryWidth) {
  using T = TypeParam;
  const auto all = AllTileMath<T>();
  std::mt19937_64 random(2);
  for (const int64_t vectors : {1, 2, 3, 4, 7}) {
    const int64_t width = vectors * kRowLanes<T>, rows = 5;
    std::vector<T> x = Random<T>(rows * width, random);
    const std::vector<T> y = Random<T>(rows * width, random), shift = {4, 5, 6, T(4.5), 7};
    x[width / 2] = -std::numeric_limits<T>::infinity();
    struct Results {
      std::vector<T> values, exps, columns, p, d_s;
    };
    std::vector<Results> results;
    for (const TileMath<T>* math : all) {
      Results r{.values = {}, .exps = x, .columns = std::vector<T>(width), .p = x, .d_s = y};
      r.values = {math->max(x.data(), width), math->dot(y.data(), y.data() + width, width),
                  math->exp(r.exps.data(), width, shift[0])};
      math->scale(r.exps.data() + width, width, T(0.3));
      math->exp_columns(x.data(), rows, width, shift.data(), r.columns.data());
      math->softmax_backward(r.p.data(), r.d_s.data(), width, shift[0], T(0.7));
      results.push_back(r);
    }
    EXPECT_EQ(results[0].values[0], *std::max_element(x.begin(), x.begin() + width));
    double dot = 0, exps = 0;
    for (int64_t i = 0; i < width; ++i) {
      dot += double{y[i]} * double{y[width + i]};
      exps += std::exp(double{x[i]} - 4);
      EXPECT_NEAR(results[0].exps[i], std::exp(double{x[i]} - 4), 1e-6);
      EXPECT_NEAR(results[0].d_s[i], std::exp(double{x[i]} - 4) * (double{y[i]} - 0.7), 1e-6);
      EXPECT_EQ(results[0].exps[width + i], T(x[width + i] * T(0.3)));
      double column = 0;
      for (int64_t row = 0; row < rows; ++row) column += std::exp(double{x[row * width + i]} - double{shift[row]});
      EXPECT_NEAR(results[0].columns[i], column, 1e-5);
    }
    EXPECT_NEAR(results[0].values[1], dot, 1e-4);
    EXPECT_NEAR(results[0].values[2], exps, 1e-4);
    for (const Results& r : results) {
      EXPECT_TRUE(SameBits(r.values, results[0].values) && SameBits(r.exps, results[0].exps) &&
                  SameBits(r.columns, results[0].columns) && SameBits(r.p, results[0].p) &&
                  SameBits(r.d_s, results[0].d_s))
          << "width " << width;
    }
  }
}

}  // namespace
}  // namespace longspan
