// Spans and the places they carry, totals, and what is kept to be taken.
#include "runtime/trace.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace longspan {
namespace {

TEST(Place, OfTheThreadAndItsScopes) {
  EXPECT_STREQ(CurrentPlace().stage, "other");
  const auto pass = InPass(Pass::kBackward);
  {
    const auto layer = InLayer(3);
    const auto stage = InStage("window");
    EXPECT_STREQ(CurrentPlace().stage, "window");
    EXPECT_EQ(CurrentPlace().layer, 3);
    EXPECT_EQ(CurrentPlace().pass, Pass::kBackward);
    std::thread([] { EXPECT_EQ(CurrentPlace().layer, -1); }).join();
  }
  EXPECT_STREQ(CurrentPlace().stage, "other");
  EXPECT_EQ(CurrentPlace().layer, -1);
}

class TraceTest : public testing::Test {
 protected:
  TraceTest() { Trace::Get().Reset(); }
  ~TraceTest() override {
    Trace::Get().Keep(false);
    Trace::Get().BeginPeriod(0);
  }
  const std::unique_ptr<Device> device_ = MakeCpuDevice();
};

TEST_F(TraceTest, CountsNothingWhileItIsNotEnabled) {
  const auto stream = device_->MakeStream("test");
  int runs = 0;
  for (const bool enabled : {false, true}) {
    Trace::Get().Enable(enabled);
    Launch(*stream, "test.span", {}, [&] { ++runs; });
    EXPECT_EQ(Trace::Get().totals().count("test.span"), enabled ? 1U : 0U);
  }
  EXPECT_EQ(runs, 2);
}

// Where it was enqueued, not where it runs.
TEST_F(TraceTest, ASpanHasThePlaceAndPeriodOfItsLaunch) {
  SetCpuStreamMode(CpuStreamMode::kReorder);
  const auto stream = device_->MakeStream("late");
  SetCpuStreamMode(CpuStreamMode::kImmediate);
  Trace::Get().Keep(true);
  Trace::Get().BeginPeriod(7);
  {
    const AtPlace place({"window", 2, Pass::kForward});
    Launch(*stream, "test.span", {1, 2}, [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }, {5, 4, 9});
  }
  Trace::Get().BeginPeriod(8);
  EXPECT_TRUE(Trace::Get().Take(7).empty());
  const double before = WallSeconds();
  stream->Synchronize();
  const std::vector<TraceSpan> spans = Trace::Get().Take(7);
  ASSERT_EQ(spans.size(), 1U);
  const TraceSpan& span = spans[0];
  EXPECT_STREQ(span.name, "test.span");
  EXPECT_STREQ(span.place.stage, "window");
  EXPECT_EQ(span.place.layer, 2);
  EXPECT_EQ(span.period, 7);
  EXPECT_EQ(span.transfer.sequence, 9);
  EXPECT_EQ(span.lane, Lane::kHost);
  EXPECT_GE(span.begin, before);
  EXPECT_GE(span.seconds, 0.02);
  EXPECT_LT(span.cpu, 0.01);  // it slept
  EXPECT_TRUE(Trace::Get().Take(8).empty());
}

TEST_F(TraceTest, NothingIsKeptUnlessAsked) {
  const auto stream = device_->MakeStream("s");
  Launch(*stream, "test.span", {1, 2}, [] {});
  Launch(*stream, "test.span", {1, 2}, [] {});
  EXPECT_TRUE(Trace::Get().Take(0).empty());
  const auto totals = Trace::Get().totals();
  EXPECT_EQ(totals.at("test.span").count, 2);
  EXPECT_EQ(totals.at("test.span").flops, 2);
}

TEST_F(TraceTest, PendingSpansAreResolvedByPeriod) {
  Trace::Get().Keep(true);
  int resolved = 0;
  TraceSpan span;
  span.name = "test.pending";
  for (const int64_t period : {1, 1, 2}) {
    Trace::Get().BeginPeriod(period);
    Trace::Get().AddPending(span, [&](TraceSpan* pending) {
      ++resolved;
      pending->seconds = 0.5;
    });
  }
  EXPECT_EQ(Trace::Get().Take(1).size(), 2U);
  EXPECT_EQ(resolved, 2);
  EXPECT_EQ(Trace::Get().Take(2).size(), 1U);
  EXPECT_EQ(Trace::Get().totals().at("test.pending").seconds, 1.5);
}

}  // namespace
}  // namespace longspan
