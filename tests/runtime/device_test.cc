// CPU streams: order within a stream, and the reordering mode that makes a missing wait show.
#include "runtime/device.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "runtime/trace.h"

namespace longspan {
namespace {

class StreamModes : public testing::TestWithParam<CpuStreamMode> {
 protected:
  void SetUp() override { SetCpuStreamMode(GetParam(), 7); }
  void TearDown() override { SetCpuStreamMode(CpuStreamMode::kImmediate); }
};

TEST_P(StreamModes, KeepsTheOrderOfOneStream) {
  const auto device = MakeCpuDevice();
  const auto stream = device->MakeStream("s");
  std::vector<int> seen;
  for (int i = 0; i < 20; ++i) stream->Enqueue([&seen, i] { seen.push_back(i); });
  stream->Synchronize();
  ASSERT_EQ(seen.size(), 20u);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(seen[i], i);
}

TEST_P(StreamModes, EventsOrderTwoStreams) {
  const auto device = MakeCpuDevice();
  const auto a = device->MakeStream("a");
  const auto b = device->MakeStream("b");
  const auto event = device->MakeEvent();
  for (int round = 0; round < 50; ++round) {
    int value = 0, read = -1;
    a->Enqueue([&] { value = 1; });
    a->Record(*event);
    b->Wait(*event);
    b->Enqueue([&] { read = value; });
    b->Synchronize();
    a->Synchronize();
    ASSERT_EQ(read, 1);
  }
}

TEST_P(StreamModes, ATimerSeesTheWorkBetween) {
  const auto device = MakeCpuDevice();
  const auto stream = device->MakeStream("a");
  const auto timer = device->MakeTimer();
  for (int run = 0; run < 2; ++run) {
    double before = 0, begin = 0, end = 0, after = 0;
    const auto now = [&](double* time) { stream->Enqueue([time] { *time = WallSeconds(); }); };
    now(&before);
    timer->Start(*stream);
    now(&begin);
    stream->Enqueue([] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); });
    now(&end);
    timer->Stop(*stream);
    now(&after);
    const double seconds = timer->Seconds();
    EXPECT_GE(seconds, 0.02);
    EXPECT_GE(seconds, end - begin);
    EXPECT_LE(seconds, after - before);
  }
}

TEST_P(StreamModes, RethrowsFromSynchronizeOrEnqueue) {
  const auto device = MakeCpuDevice();
  const auto stream = device->MakeStream("s");
  EXPECT_THROW(
      {
        stream->Enqueue([] { Fail(ExitCode::kData, "expected {}, found {}", 1, 2); });
        stream->Synchronize();
      },
      Error);
}

INSTANTIATE_TEST_SUITE_P(Modes, StreamModes, testing::Values(CpuStreamMode::kImmediate, CpuStreamMode::kReorder));

TEST(ReorderingStreams, ShowAMissingWait) {
  SetCpuStreamMode(CpuStreamMode::kReorder, 3);
  const auto device = MakeCpuDevice();
  const auto a = device->MakeStream("a");
  const auto b = device->MakeStream("b");
  int wrong = 0;
  for (int round = 0; round < 50; ++round) {
    int value = 0, read = -1;
    a->Enqueue([&] { value = 1; });
    b->Enqueue([&] { read = value; });
    b->Synchronize();
    a->Synchronize();
    wrong += read != 1;
  }
  SetCpuStreamMode(CpuStreamMode::kImmediate);
  EXPECT_GT(wrong, 5);
}

TEST(CpuGraph, EnqueuesAtEveryLaunch) {
  const auto device = MakeCpuDevice();
  const auto stream = device->MakeStream("s");
  int ran = 0;
  const auto graph = device->Capture(*stream, [&] { stream->Enqueue([&] { ++ran; }); });
  EXPECT_EQ(ran, 0);
  graph->Launch();
  graph->Launch();
  EXPECT_EQ(ran, 2);
}

TEST(ReorderingStreams, AnEventNeverRecordedIsNoWait) {
  SetCpuStreamMode(CpuStreamMode::kReorder, 3);
  const auto device = MakeCpuDevice();
  const auto stream = device->MakeStream("s");
  const auto event = device->MakeEvent();
  SetCpuStreamMode(CpuStreamMode::kImmediate);
  stream->Wait(*event);
  EXPECT_NO_THROW(stream->Synchronize());
}

}  // namespace
}  // namespace longspan
