// Ranks of one machine share a clock: what is found must be no more than the error it states. And how fast messages
// are.
#include "launch/report/clocks.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launch/report/link_speed.h"

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

TEST(Links, OfEveryRankToTheNext) {
  const auto world = MakeMpiWorld();
  const LinkSpeed found = MeasureNextLink(*world);
  if (world->size() == 1) {
    EXPECT_EQ(found.peer, -1);
    return;
  }
  EXPECT_EQ(found.peer, (world->rank() + 1) % world->size());
  EXPECT_GT(found.seconds, 0);
  EXPECT_LT(found.seconds, 5);
}

}  // namespace
}  // namespace longspan
