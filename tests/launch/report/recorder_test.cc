// What a recorder writes while periods go by: sums, transfers, layers, full detail, and that it is read again.
#include "launch/report/recorder.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>

#include "launch/report/report.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

class RecorderTest : public testing::Test {
 protected:
  // One folder for all ranks, of rank 0's choice.
  RecorderTest() {
    if (world_->rank() == 0) folder_.emplace();
    std::string path = folder_ ? *folder_ / "run" : "";
    path.resize(200);
    world_->Broadcast(*stream_, HostView(reinterpret_cast<uint8_t*>(path.data()), {std::ssize(path)}), 0);
    path_ = path.c_str();
  }
  ~RecorderTest() override { world_->Barrier(); }

  Recorder::Args Args(bool append = false) {
    return {.world = *world_, .device = *device_, .compute = *stream_, .folder = path_, .append = append, .facts = {}};
  }
  void Work(const char* stage, int layer, double seconds) {
    const AtPlace place({stage, layer, Pass::kForward});
    Launch(*stream_, "test.work", {10, 20},
           [=] { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); });
  }
  void Step(Recorder& recorder, int64_t step) {
    recorder.Begin(RunPeriod::kStep, step);
    Work("one", 0, 0.002);
    Work("one", 1, 0.001);
    {
      const auto stage = InStage("two");
      int64_t value = 1;
      world_->AllReduce(*stream_, HostView(&value, {1}), ReduceOp::kSum);
    }
    recorder.UnderWay();
    recorder.End(1 << 20);
  }

  const std::unique_ptr<Communicator> world_ = MakeMpiWorld();
  const std::unique_ptr<Device> device_ = MakeCpuDevice();
  const std::unique_ptr<Stream> stream_ = device_->MakeStream("test");
  std::optional<TempFolder> folder_;
  std::string path_;
};

TEST_F(RecorderTest, PeriodsAreReadAsTheyWere) {
  {
    Recorder::Args args = Args();
    args.first_full = 2;
    args.full_steps = 1;
    args.facts.first_step = 11;
    Recorder recorder(args);
    for (int64_t step = 11; step <= 13; ++step) Step(recorder, step);
    recorder.Begin(RunPeriod::kStep, 14);  // broken off
    Work("never", 0, 0);
    {
      const Recorder::Stretch saving(recorder, RunPeriod::kCheckpoint, 13);
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
    { const Recorder::Stretch nothing(recorder, RunPeriod::kCheckpoint, 13); }
    Work("between", 0, 0.001);
    recorder.Finish();
  }
  world_->Barrier();
  const ProfileData data = ReadProfiles(path_);
  EXPECT_TRUE(data.problems.empty());
  EXPECT_EQ(data.expected, world_->size());
  ASSERT_EQ(static_cast<int>(data.ranks.size()), world_->size());
  for (const RankProfile& rank : data.ranks) {
    EXPECT_TRUE(rank.ended);
    ASSERT_EQ(rank.periods.size(), 4U);
    EXPECT_EQ(rank.periods[3].what, proto::Period::CHECKPOINT);
    EXPECT_EQ(rank.sessions.back().first_step, 11);
    EXPECT_EQ(rank.sessions.back().last_step, 13);
    double layers = 0;
    for (const ProfileCell& cell : rank.layers) {
      if (cell.stage == "one") layers += cell.layer == 0 ? cell.seconds : 0;
    }
    EXPECT_GE(layers, 3 * 0.002);
    for (int i = 0; i < 3; ++i) {
      const ProfilePeriod& step = rank.periods[i];
      EXPECT_EQ(step.step, 11 + i);
      EXPECT_EQ(step.memory, 1 << 20);
      EXPECT_EQ(step.spans.size(), i == 1 ? 3U : 0U);
      EXPECT_EQ(step.transfers.size(), world_->size() > 1 ? 1U : 0U);
      ASSERT_EQ(step.cells.size(), 2U);
      const bool first = step.cells[0].stage == "one";
      const ProfileCell &one = step.cells[first ? 0 : 1], &two = step.cells[first ? 1 : 0];
      EXPECT_EQ(one.stage, "one");
      EXPECT_EQ(one.pass, proto::FORWARD);
      EXPECT_EQ(one.count, 2);
      EXPECT_EQ(one.flops, 20);
      EXPECT_GE(one.seconds, 0.003);
      EXPECT_LT(one.cpu, one.seconds);
      EXPECT_EQ(two.kind, world_->size() > 1 ? proto::TRANSFER : proto::WORK);
    }
  }
}

// From the driver's words to those of the report. Without a GPU no rank asks.
TEST_F(RecorderTest, ARankWhoseGpuIsTooHotIsNamed) {
  if (world_->size() < 3) return;
  setenv("LONGSPAN_NVML", STUB_NVML, 1);
  setenv("STUB_NVML_HOT", "gpu 1", 1);
  {
    Recorder::Args args = Args();
    args.gpu = fmt::format("gpu {}", world_->rank());
    Recorder recorder(args);
    for (int64_t step = 1; step <= 8; ++step) {
      recorder.Begin(RunPeriod::kStep, step);
      Work("one", 0, world_->rank() == 1 ? 0.15 : 0.05);
      int64_t value = 1;
      world_->AllReduce(*stream_, HostView(&value, {1}), ReduceOp::kSum);
      recorder.End();
    }
    recorder.Finish();
  }
  unsetenv("LONGSPAN_NVML");
  unsetenv("STUB_NVML_HOT");
  world_->Barrier();
  const ProfileData data = ReadProfiles(path_);
  EXPECT_TRUE(data.problems.empty()) << data.problems[0];
  const Summary summary = Summarize(data);
  EXPECT_EQ(summary.gpus.size(), data.ranks.size());
  ASSERT_FALSE(summary.stragglers.empty());
  EXPECT_EQ(summary.stragglers[0].rank, 1);
  EXPECT_EQ(summary.stragglers[0].what, SlowClass::kThrottled);
  const std::string text = ReportText(summary);
  EXPECT_NE(text.find("rank 1 is slow by its own doing (throttled, GPU too hot, 1095 MHz, others 1980)"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("GPUs from the first step to the last"), std::string::npos) << text;
}

// The rank that comes last makes the others wait, for as long as it was late.
TEST_F(RecorderTest, WaitingIsToldFromMoving) {
  if (world_->size() == 1) return;
  constexpr double kLate = 0.2;
  {
    Recorder recorder(Args());
    recorder.Begin(RunPeriod::kStep, 1);
    if (world_->rank() == 1) Work("late", 0, kLate);
    int64_t value = 1;
    world_->AllReduce(*stream_, HostView(&value, {1}), ReduceOp::kSum);
    recorder.End();
    recorder.Finish();
  }
  world_->Barrier();
  for (const RankProfile& rank : ReadProfiles(path_).ranks) {
    ASSERT_EQ(rank.periods.size(), 1U);
    const ProfileTransfer& transfer = rank.periods[0].transfers.at(0);
    EXPECT_EQ(transfer.bytes, 8 * (world_->size() - 1));
    if (rank.rank == 1) {
      EXPECT_EQ(transfer.wait, 0);
      EXPECT_GT(transfer.late, kLate / 2);
    } else {
      EXPECT_GT(transfer.wait, kLate / 2);
      EXPECT_EQ(transfer.late, 0);
      EXPECT_LE(transfer.wait, transfer.span.seconds);
    }
  }
}

TEST_F(RecorderTest, AResumedRunGoesOnInTheFile) {
  for (const bool append : {false, true}) {
    Recorder::Args args = Args(append);
    args.facts.first_step = append ? 3 : 1;
    Recorder recorder(args);
    for (int i = 0; i < 2; ++i) Step(recorder, args.facts.first_step + i);
    recorder.Finish();
    world_->Barrier();
    if (!append) std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // sessions count seconds
  }
  const ProfileData data = ReadProfiles(path_);
  EXPECT_EQ(data.ranks[0].sessions.size(), 2U);
  EXPECT_EQ(data.ranks[0].periods.size(), 2U);  // of the newest
  EXPECT_EQ(data.ranks[0].periods[0].step, 3);
}

TEST_F(RecorderTest, AnUnwritableProfileIsAWarningAndTheRunGoesOn) {
  Recorder::Args args = Args();
  args.folder = "/proc/none";
  testing::internal::CaptureStderr();
  Recorder recorder(args);
  Step(recorder, 1);
  recorder.Finish();
  EXPECT_NE(testing::internal::GetCapturedStderr().find("has no profile"), std::string::npos);
}

}  // namespace
}  // namespace longspan
