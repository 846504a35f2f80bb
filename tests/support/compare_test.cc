// The comparisons themselves: what must never pass.
#include "tests/support/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace longspan::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(RmsClose, IsRelativeToTheExpectedOrTheFloor) {
  EXPECT_TRUE(RmsClose("x", {1.0009, 2}, {1, 2}, 1e-3));
  EXPECT_FALSE(RmsClose("x", {1.005, 2}, {1, 2}, 1e-3));
  EXPECT_FALSE(RmsClose("x", {1e-9}, {0}, 1e-3));
  EXPECT_TRUE(RmsClose("x", {1e-9}, {0}, 1e-3, 1e-5));
}

TEST(RmsClose, NanAndStrayInfinitiesNeverPass) {
  EXPECT_TRUE(RmsClose("x", {-kInfinity, 1}, {-kInfinity, 1}, 0));
  EXPECT_FALSE(RmsClose("x", {5, 1}, {-kInfinity, 1}, 1));
  EXPECT_FALSE(RmsClose("x", {kInfinity, 1}, {-kInfinity, 1}, 1));
  EXPECT_FALSE(RmsClose("x", {-kInfinity, 1}, {5, 1}, 1));
  EXPECT_FALSE(RmsClose("x", {kNan, 1}, {1, 1}, 1));
  EXPECT_FALSE(RmsClose("x", {kNan, 1}, {kNan, 1}, 1));
  EXPECT_FALSE(RmsClose("x", {1}, {1, 1}, 1));
}

TEST(RmsClose, NamesTheWorstPlace) {
  EXPECT_NE(std::string(RmsClose("d_q", {1, 2, 7}, {1, 2, 3}, 1e-3).message()).find("d_q"), std::string::npos);
  EXPECT_NE(std::string(RmsClose("x", {1, 2, 7}, {1, 2, 3}, 1e-3).message()).find("[2] of 3: expected 3, found 7"),
            std::string::npos);
}

TEST(BitEqual, TellsTheZerosApart) {
  EXPECT_TRUE(BitEqual("x", std::vector<double>{kNan, 0.0}, {kNan, 0.0}));
  EXPECT_FALSE(BitEqual("x", std::vector<double>{-0.0}, {0.0}));
}

TEST(GradientFloor, IsAThousandthOfTheRmsOfAll) {
  const std::vector<double> a = {3}, b = {0, 0, std::sqrt(7.0)};
  EXPECT_DOUBLE_EQ(GradientFloor({&a, &b}), 2e-3);
}

}  // namespace
}  // namespace longspan::test
