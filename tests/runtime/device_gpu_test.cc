// GPU device: order of streams and events, host tasks and their exceptions, copies, memory that is not there, the
// trace.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <numeric>
#include <thread>
#include <vector>

#include "runtime/gpu.h"
#include "runtime/memory.h"

namespace longspan {
namespace {

Device& Gpu() {
  static const std::unique_ptr<Device> device = MakeGpuDevice(0);
  return *device;
}

Tensor OnDevice(const Buffer& buffer, int64_t count) {
  return Tensor(buffer.data(), DType::kI32, DeviceKind::kGpu, {count});
}

void Doze() { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }

TEST(GpuDevice, HostTasksRunInOrder) {
  const auto stream = Gpu().MakeStream("s");
  std::vector<int> seen;
  for (int i = 0; i < 20; ++i) stream->Enqueue([&seen, i] { seen.push_back(i); });
  stream->Synchronize();
  ASSERT_EQ(seen.size(), 20u);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(seen[i], i);
}

TEST(GpuDevice, EventsOrderTwoStreams) {
  const auto a = Gpu().MakeStream("a"), b = Gpu().MakeStream("b");
  const auto event = Gpu().MakeEvent(), never = Gpu().MakeEvent();
  for (int round = 0; round < 5; ++round) {
    int value = 0, read = -1;
    a->Enqueue([&] {
      Doze();
      value = 1;
    });
    a->Record(*event);
    b->Wait(*never);
    b->Wait(*event);
    b->Enqueue([&] { read = value; });
    b->Synchronize();
    EXPECT_EQ(read, 1);
    a->Synchronize();
  }
}

TEST(GpuDevice, AnExceptionIsKeptAndLaterTasksAreSkipped) {
  const auto stream = Gpu().MakeStream("s");
  bool ran = false;
  stream->Enqueue([] { Fail(ExitCode::kData, "expected {}, found {}", 1, 2); });
  stream->Enqueue([&] { ran = true; });
  EXPECT_THROW(stream->Synchronize(), Error);
  EXPECT_FALSE(ran);
  stream->Enqueue([&] { ran = true; });
  stream->Synchronize();
  EXPECT_TRUE(ran);
}

TEST(GpuDevice, CopiesBetweenAnyTwoMemories) {
  constexpr int64_t kCount = 1 << 20;
  const auto stream = Gpu().MakeStream("s");
  const Buffer first(Gpu(), kCount * 4, "first"), second(Gpu(), kCount * 4, "second");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first.data()) % 256, 0u);
  std::vector<int32_t> from(kCount), to(kCount, -1), last(kCount, -1);
  std::iota(from.begin(), from.end(), 7);
  Gpu().Copy(*stream, OnDevice(first, kCount), HostView(from.data(), {kCount}));
  Gpu().Copy(*stream, OnDevice(second, kCount), OnDevice(first, kCount));
  Gpu().Copy(*stream, HostView(to.data(), {kCount}), OnDevice(second, kCount));
  Gpu().Copy(*stream, HostView(last.data(), {kCount}), HostView(to.data(), {kCount}));
  stream->Synchronize();
  EXPECT_EQ(to, from);
  EXPECT_EQ(last, from);

  Gpu().FillBytes(*stream, OnDevice(first, kCount), 0x11);
  Gpu().Copy(*stream, HostView(to.data(), {kCount}), OnDevice(first, kCount));
  stream->Synchronize();
  EXPECT_EQ(to, std::vector<int32_t>(kCount, 0x11111111));

  EXPECT_THROW(Gpu().Copy(*stream, OnDevice(first, 3), OnDevice(second, 4)), Error);
  const auto cpu = MakeCpuDevice();
  const auto cpu_stream = cpu->MakeStream("cpu");
  EXPECT_THROW(cpu->Copy(*cpu_stream, HostView(to.data(), {kCount}), OnDevice(first, kCount)), Error);
  EXPECT_THROW(Gpu().Copy(*cpu_stream, HostView(to.data(), {kCount}), OnDevice(first, kCount)), Error);
}

TEST(GpuDevice, SaysWhatWasTooLargeAndWhatIsFree) {
  try {
    Gpu().Allocate(int64_t{1} << 50, "the keys of layer 3");
    FAIL() << "expected an error";
  } catch (const Error& error) {
    const std::string text = error.what();
    for (const char* part :
         {"out of GPU memory", "the keys of layer 3", "1125899906842624 bytes", "GiB free of", "cp"}) {
      EXPECT_NE(text.find(part), std::string::npos) << part << ": " << text;
    }
  }
  const Buffer still(Gpu(), 1 << 20, "small");  // the failure does not stick
  EXPECT_NE(still.data(), nullptr);
}

TEST(GpuDevice, RefusesAGpuThatIsNotThere) {
  EXPECT_THROW(MakeGpuDevice(GpuCount()), Error);
  EXPECT_THROW(MakeGpuDevice(-1), Error);
  EXPECT_NE(Gpu().name().find("GiB"), std::string::npos);
}

TEST(GpuDevice, ATimerSeesTheWorkBetween) {
  constexpr int64_t kBytes = 64 << 20;
  const auto stream = Gpu().MakeStream("s");
  const auto timer = Gpu().MakeTimer();
  const Buffer buffer(Gpu(), kBytes, "buffer");
  const Tensor tensor = OnDevice(buffer, kBytes / 4);
  const auto seconds = [&](int fills) {
    Gpu().FillBytes(*stream, tensor, 0);
    timer->Start(*stream);
    for (int i = 0; i < fills; ++i) Gpu().FillBytes(*stream, tensor, 1);
    timer->Stop(*stream);
    return timer->Seconds();
  };
  seconds(1);
  EXPECT_GT(seconds(1), kBytes / 20e12);
  EXPECT_GT(seconds(100), 10 * seconds(1));
}

TEST(GpuTrace, SpansAreTimedByTheStream) {
  constexpr int64_t kBytes = 64 << 20;
  const auto stream = Gpu().MakeStream("s");
  const Buffer buffer(Gpu(), kBytes, "buffer");
  const Tensor tensor = OnDevice(buffer, kBytes / 4);
  Gpu().FillBytes(*stream, tensor, 0);
  stream->Synchronize();
  Trace::Get().Reset();
  constexpr int kCalls = 10000;  // more than may be pending
  for (int i = 0; i < kCalls; ++i) Gpu().FillBytes(*stream, tensor.Rows(0, i == 0 ? kBytes / 4 : 16), 1);
  const auto totals = Trace::Get().totals();
  ASSERT_EQ(totals.count("memory.fill"), 1u);
  const SpanTotal& total = totals.at("memory.fill");
  EXPECT_EQ(total.count, kCalls);
  EXPECT_EQ(total.bytes, kBytes + (kCalls - 1) * 64.0);
  EXPECT_GT(total.seconds, kBytes / 20e12);
  EXPECT_LT(total.seconds, 10);
}

TEST(GpuTrace, ASpanThatFailsIsNotCounted) {
  const auto stream = Gpu().MakeStream("s");
  Trace::Get().Reset();
  EXPECT_THROW(LaunchGpu(*stream, "test.fails", {}, [](cudaStream_t) { Fail(ExitCode::kData, "no"); }), Error);
  EXPECT_TRUE(Trace::Get().totals().empty());
}

TEST(GpuTrace, NothingIsTimedWhileTheTraceIsNotEnabled) {
  const auto stream = Gpu().MakeStream("s");
  const Buffer buffer(Gpu(), 1 << 20, "buffer");
  Trace::Get().Reset();
  for (const bool enabled : {false, true}) {
    Trace::Get().Enable(enabled);
    Gpu().FillBytes(*stream, OnDevice(buffer, 1 << 18), 1);
    EXPECT_EQ(Trace::Get().totals().count("memory.fill"), enabled ? 1U : 0U);
  }
}

TEST(GpuTrace, SpansBeginOnTheClockOfTheHost) {
  constexpr double kError = 0.05;  // other programs may have the GPU for a while; of another clock it would be hours
  const auto stream = Gpu().MakeStream("compute");
  const Buffer buffer(Gpu(), 1 << 20, "buffer");
  Gpu().CompareClocks(*stream);
  Trace::Get().Reset();
  Trace::Get().Keep(true);
  const double before = WallSeconds();
  Gpu().FillBytes(*stream, OnDevice(buffer, 1 << 18), 1);
  stream->Synchronize();
  const double after = WallSeconds();
  const std::vector<TraceSpan> spans = Trace::Get().Take(0);
  Trace::Get().Keep(false);
  ASSERT_EQ(spans.size(), 1U);
  EXPECT_EQ(spans[0].lane, Lane::kCompute);
  EXPECT_GT(spans[0].begin, before - kError);
  EXPECT_LT(spans[0].begin + spans[0].seconds, after + kError);
}

TEST(GpuTrace, AStallIsASpanOfTheStreamThatWaits) {
  const auto slow = Gpu().MakeStream("slow"), waiting = Gpu().MakeStream("waiting");
  const auto event = Gpu().MakeEvent();
  Trace::Get().Reset();
  slow->Enqueue(Doze);
  slow->Record(*event);
  waiting->Wait(*event, "test.stall");
  waiting->Wait(*event);
  const auto totals = Trace::Get().totals();
  ASSERT_EQ(totals.count("test.stall"), 1u);
  EXPECT_EQ(totals.at("test.stall").count, 1);
  EXPECT_GT(totals.at("test.stall").seconds, 0.01);
}

// a is filled, its copy forks to a second stream and joins again.
TEST(GpuGraph, RunsAtEveryLaunchAndNotBefore) {
  constexpr int64_t kCount = 1000;
  const auto stream = Gpu().MakeStream("s"), other = Gpu().MakeStream("other");
  const auto fork = Gpu().MakeEvent(), join = Gpu().MakeEvent();
  const Buffer memory(Gpu(), 8 * kCount, "a test");
  const Tensor a(memory.data(), DType::kI32, DeviceKind::kGpu, {kCount});
  const Tensor b(static_cast<char*>(memory.data()) + 4 * kCount, DType::kI32, DeviceKind::kGpu, {kCount});
  const auto fill = [&](const Tensor& x, uint8_t value) { Gpu().FillBytes(*stream, x, value); };
  std::vector<int32_t> host(kCount);
  const auto value_of_b = [&] {
    Gpu().Copy(*stream, HostView(host.data(), {kCount}), b);
    stream->Synchronize();
    return host[kCount - 1];
  };
  fill(b, 1);
  const std::unique_ptr<Graph> graph = Gpu().Capture(*stream, [&] {
    fill(a, 2);
    stream->Record(*fork);
    other->Wait(*fork, "test.stall");
    Gpu().Copy(*other, b, a);
    other->Record(*join);
    stream->Wait(*join);
  });
  EXPECT_EQ(value_of_b(), 0x01010101);
  Trace::Get().Reset();
  for (int i = 0; i < 2; ++i) {
    fill(b, 1);
    graph->Launch();
    EXPECT_EQ(value_of_b(), 0x02020202);
  }
  const auto totals = Trace::Get().totals();
  EXPECT_EQ(totals.at("graph").count, 2);
  EXPECT_EQ(totals.count("test.stall"), 0u);
  EXPECT_EQ(totals.at("memory.fill").count, 2);  // those outside
}

TEST(GpuGraph, AFailureWithinEndsTheCapture) {
  const auto stream = Gpu().MakeStream("s");
  EXPECT_THROW(Gpu().Capture(*stream, [] { Fail(ExitCode::kData, "no"); }), Error);
  bool ran = false;
  stream->Enqueue([&] { ran = true; });
  stream->Synchronize();
  EXPECT_TRUE(ran);
}

TEST(GpuScratch, GrowsAndStays) {
  const auto a = Gpu().MakeStream("a"), b = Gpu().MakeStream("b");
  GpuScratch scratch("a test");
  const AllocationCounts before = CountedAllocations();
  void* const first = scratch.Get(*a, 1000);
  EXPECT_EQ(CountedAllocations().allocations, before.allocations + 1);
  EXPECT_EQ(CountedAllocations().scratch_bytes, before.scratch_bytes + 1000);
  EXPECT_EQ(scratch.Get(*a, 500), first);
  EXPECT_NE(scratch.Get(*b, 500), first);
  EXPECT_EQ(scratch.Get(*a, 1000), first);
  EXPECT_EQ(CountedAllocations().allocations, before.allocations + 2);
  EXPECT_NE(scratch.Get(*a, 1 << 20), nullptr);
  EXPECT_THROW(scratch.Get(*a, int64_t{1} << 50), Error);
  EXPECT_NE(scratch.Get(*a, 16), nullptr);
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (longspan::GpuCount() == 0) {
    std::puts("skipped: no GPU");
    return 77;
  }
  return RUN_ALL_TESTS();
}
