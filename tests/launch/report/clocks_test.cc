// Ranks of one machine share a clock: what is found must be no more than the error it states.
#include "launch/report/clocks.h"

#include <gtest/gtest.h>

#include <cmath>

namespace longspan {
namespace {

TEST(Clocks, AgreeWithinTheErrorStated) {
  const auto world = MakeMpiWorld();
  for (int i = 0; i < 5; ++i) {
    const ClockDifference found = CompareClocks(*world);
    EXPECT_LE(std::abs(found.ahead), found.error + 1e-6);
    EXPECT_EQ(found.error > 0, world->rank() > 0);
    EXPECT_LT(found.error, 5);
  }
}

}  // namespace
}  // namespace longspan
