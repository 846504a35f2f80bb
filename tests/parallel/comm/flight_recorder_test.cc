// The flight recorder's ring: what a call leaves in it, what another process reads, and what that costs.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdio>

#include "parallel/comm/recorder.h"
#include "runtime/files/mapped_file.h"
#include "runtime/place.h"
#include "runtime/trace.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

class RecorderTest : public testing::Test {
 protected:
  RecorderTest() { recorder_.Open(path_, 1, 2, "node"); }
  ~RecorderTest() override { recorder_.Close(); }
  static int64_t Enqueue(int group, int64_t sequence) {
    return FlightRecorder::Get().Enqueue(group, {"comm.all_gather", sequence, 5, 10, DType::kBf16});
  }

  TempFolder folder_;
  const std::string path_ = folder_ / "ring";
  FlightRecorder& recorder_ = FlightRecorder::Get();
};

TEST_F(RecorderTest, ATransferIsWrittenAsItGoes) {
  const int group = recorder_.AddGroup(7, 2, 1, /*device=*/false);
  const FlightRing& ring = *recorder_.ring();
  const AtPlace place({"halo", 3, Pass::kBackward});
  const int64_t number = Enqueue(group, 1);
  const FlightRing::Record& record = ring.records[number % FlightRing::kRecords];
  EXPECT_STREQ(record.operation.data(), "comm.all_gather");
  EXPECT_STREQ(record.stage.data(), "halo");
  EXPECT_EQ(record.layer, 3);
  EXPECT_EQ(record.received, 5);
  EXPECT_EQ(record.common, 10);
  EXPECT_GT(record.enqueued, 0);
  EXPECT_EQ(record.started, 0);
  EXPECT_EQ(ring.groups[group].arrived, 0);  // not yet entered
  {
    const Transferring transferring(number);
    EXPECT_EQ(ring.groups[group].arrived, 1);
    EXPECT_EQ(record.done, 0);
  }
  EXPECT_GE(record.done, record.started);
  const int64_t failed = Enqueue(group, 2);
  EXPECT_THROW(
      {
        const Transferring transferring(failed);
        throw 1;
      },
      int);
  EXPECT_EQ(ring.records[failed % FlightRing::kRecords].done, 0);
}

TEST_F(RecorderTest, GroupsOfOneIdAreTold) {
  EXPECT_EQ(recorder_.ring()->groups[recorder_.AddGroup(7, 2, 1, false)].instance, 0);
  EXPECT_EQ(recorder_.ring()->groups[recorder_.AddGroup(7, 2, 1, true)].instance, 0);
  EXPECT_EQ(recorder_.ring()->groups[recorder_.AddGroup(7, 2, 1, false)].instance, 1);
  for (int i = 3; i < FlightRing::kGroups; ++i) recorder_.AddGroup(8, 2, 1, false);
  EXPECT_EQ(recorder_.AddGroup(9, 2, 1, false), -1);
  EXPECT_EQ(Enqueue(-1, 1), 0);
}

TEST_F(RecorderTest, TheOldestAreOverwritten) {
  const int group = recorder_.AddGroup(7, 2, 1, false);
  const int64_t first = Enqueue(group, 1);
  for (int64_t call = 2; call <= FlightRing::kRecords + 1; ++call) Enqueue(group, call);
  recorder_.Done(first);  // is not known any more, and changes no other
  for (const FlightRing::Record& record : recorder_.ring()->records) EXPECT_EQ(record.done, 0);
  EXPECT_EQ(recorder_.ring()->newest, FlightRing::kRecords + 1);
}

// A GPU's stream has done all of a group's calls before one that it has done.
TEST_F(RecorderTest, CallsOfAGroupAreDoneInOrder) {
  const int group = recorder_.AddGroup(7, 2, 1, /*device=*/true), other = recorder_.AddGroup(8, 2, 1, true);
  const FlightRing& ring = *recorder_.ring();
  for (int64_t call = 1; call <= 3; ++call) Enqueue(group, call);  // numbers 1 to 3
  Enqueue(other, 1);
  for (int64_t call = 4; call <= 6; ++call) Enqueue(group, call);  // numbers 5 to 7
  EXPECT_EQ(ring.groups[group].arrived, 6);
  recorder_.Done(2);  // as of a captured one
  recorder_.DoneThrough(6);
  for (const auto& [number, done] : {std::pair(1, true), {2, true}, {3, true}, {4, false}, {6, true}, {7, false}}) {
    EXPECT_EQ(ring.records[number].done > 0, done) << number;
  }
}

TEST_F(RecorderTest, PhasesNest) {
  EXPECT_EQ(recorder_.ring()->phase, HostPhase::kLoad);
  recorder_.SetStep(4);
  EXPECT_EQ(recorder_.ring()->phase, HostPhase::kStep);
  {
    const InPhase phase(HostPhase::kSave);
    EXPECT_EQ(recorder_.ring()->phase, HostPhase::kSave);
  }
  EXPECT_EQ(recorder_.ring()->phase, HostPhase::kStep);
  EXPECT_EQ(recorder_.ring()->step, 4);
}

// What a process wrote until it was killed is there for others.
TEST_F(RecorderTest, TheRingOutlivesAKilledProcess) {
  const int group = recorder_.AddGroup(7, 2, 1, false);
  const std::string path = folder_ / "killed";
  const pid_t child = fork();
  if (child == 0) {
    FlightRecorder& own = FlightRecorder::Get();
    own.Open(path, 0, 2, "other");
    own.SetStep(9);
    own.Start(Enqueue(own.AddGroup(7, 2, 0, false), 42));
    kill(getpid(), SIGKILL);
  }
  waitpid(child, nullptr, 0);
  const MappedFile file(path);
  ASSERT_EQ(file.size(), static_cast<int64_t>(sizeof(FlightRing)));
  const auto& ring = *reinterpret_cast<const FlightRing*>(file.data());
  EXPECT_EQ(ring.pid, child);
  EXPECT_EQ(ring.step, 9);
  EXPECT_EQ(ring.groups[0].arrived, 42);
  EXPECT_EQ(ring.finished, 0);
  EXPECT_EQ(Enqueue(group, 1), 1);  // this process's is its own
}

TEST_F(RecorderTest, AFileThatCannotBeMadeIsAnError) {
  recorder_.Close();
  EXPECT_FALSE(std::filesystem::exists(path_));
  ExpectError(ExitCode::kIo, {"nowhere/ring: cannot be made"},
              [&] { recorder_.Open(folder_ / "nowhere/ring", 0, 1, ""); });
  EXPECT_EQ(recorder_.ring(), nullptr);
  recorder_.SetStep(1);  // nothing is written
  EXPECT_EQ(recorder_.AddGroup(7, 2, 1, false), -1);
}

// Nanoseconds of a transfer, the least of several rounds: a step of 10 ms with 120 transfers may spend 0.2% on them.
TEST_F(RecorderTest, ATransferCostsLittle) {
  const int group = recorder_.AddGroup(7, 2, 1, false);
  const AtPlace place({"selected_transfer", 3, Pass::kBackward});
  constexpr int kCalls = 20'000;
  double least = 1e300;
  for (int round = 0; round < 10; ++round) {
    const double begin = ThreadCpuSeconds();
    for (int64_t call = 1; call <= kCalls; ++call) {
      const Transferring transferring(Enqueue(group, call));
    }
    least = std::min(least, 1e9 * (ThreadCpuSeconds() - begin) / kCalls);
  }
  std::printf("ns a transfer: %.0f\n", least);
  RecordProperty("ns_a_transfer", std::to_string(least));
#ifndef __SANITIZE_ADDRESS__
  EXPECT_LT(least, 1000);
#endif
}

}  // namespace
}  // namespace longspan
