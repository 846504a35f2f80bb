// Ranks of one machine share a clock: what is found must be no more than the error it states. And how fast messages
// are.
#include "launch/report/clocks.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launch/report/link_speed.h"
#include "runtime/error.h"

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

// Pairs have numbers of their own for their messages: all ranks go on with the same call.
TEST(Clocks, DoNotCountAsCallsOfAllRanks) {
  const auto world = MakeMpiWorld();
  CompareClocks(*world);
  MeasureNextLink(*world);
  try {
    world->Split(/*color=*/-1, 0);
    ADD_FAILURE() << "a negative color passes";
  } catch (const Error& wrong) {
    EXPECT_NE(std::string(wrong.what()).find("comm.split, call 1 of rank"), std::string::npos) << wrong.what();
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
