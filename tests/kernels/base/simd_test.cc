// The parts that the CPU's attention kernels are made of.
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "kernels/base/simd_cpu.h"

namespace longspan {
namespace {

float ExpOf(float x) { return Exp(Vector<float>{} + x)[0]; }

TEST(Simd, ExpIsWithinTwoUlp) {
  for (float x = -87; x <= 1; x += 0.00037f) {
    const double expected = std::exp(static_cast<double>(x));
    ASSERT_NEAR(ExpOf(x), expected, 2 * expected * 6e-8) << x;
  }
}

TEST(Simd, ExpAtTheEdges) {
  EXPECT_EQ(ExpOf(0), 1);
  EXPECT_EQ(ExpOf(-std::numeric_limits<float>::infinity()), 0);
  EXPECT_EQ(ExpOf(-1000), 0);
  EXPECT_EQ(ExpOf(-1e30f), 0);
  for (uint32_t bits : {0x7FC00000u, 0xFFC00000u, 0xFFFFFFFFu, 0x7FC000FFu}) {
    EXPECT_TRUE(std::isnan(ExpOf(std::bit_cast<float>(bits)))) << bits;
  }
}

// Small integers: exact in any order, so every element must be met exactly once.
template <typename T>
void ExpectProducts() {
  for (int64_t rows : {1, 2, 3, 5, 8, 13}) {
    for (int64_t vectors : {1, 2, 3, 4, 5, 7}) {
      for (int64_t depth : {1, 6}) {
        const int64_t columns = vectors * kLanes<T>;
        std::vector<T> a(rows * depth), b(depth * columns), c(rows * columns, T(3));
        for (size_t i = 0; i < a.size(); ++i) a[i] = T(i % 7) - 3;
        for (size_t i = 0; i < b.size(); ++i) b[i] = T(i % 11) - 5;
        for (bool accumulate : {true, false}) {
          // a is stored transposed: [depth,rows].
          TileProduct<T>({a.data(), 1, rows}, b.data(), columns, c.data(), columns, rows, columns, depth, accumulate);
          for (int64_t i = 0; i < rows; ++i) {
            for (int64_t j = 0; j < columns; ++j) {
              T expected = accumulate ? T(3) : T(0);
              for (int64_t p = 0; p < depth; ++p) expected += a[p * rows + i] * b[p * columns + j];
              ASSERT_EQ(c[i * columns + j], expected) << rows << " " << vectors << " " << depth;
            }
          }
        }
      }
    }
  }
}

TEST(Simd, TileProduct) {
  ExpectProducts<float>();
  ExpectProducts<double>();
}

}  // namespace
}  // namespace longspan
