// Whom the verdict on a job that hangs names, for reports of ranks that are made up.
#include "launch/job/verdict.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace longspan {
namespace {

constexpr uint32_t kWorld = 1, kPair = 2;

// A job of so many ranks, all of one group; each has done call 1.
class VerdictTest : public testing::Test {
 protected:
  void Begin(int ranks) {
    ranks_.clear();
    for (int rank = 0; rank < ranks; ++rank) {
      RankReport report;
      report.rank = rank;
      report.size = ranks;
      report.pid = 100 + rank;
      report.node = "node" + std::to_string(rank / 2);
      report.phase = HostPhase::kStep;
      report.step = 5;
      report.threads = "    main thread\n      work\n";
      report.groups.push_back({kWorld, 0, ranks, rank, false, 0});
      ranks_.emplace_back(report);
      Enter(rank, 1, "comm.all_gather").done = 9;
    }
  }
  RankReport::Transfer& Enter(int rank, int64_t sequence, const std::string& operation, int group = 0,
                              int64_t common = 64, DType dtype = DType::kF32) {
    RankReport& report = *ranks_[rank];
    report.groups[group].arrived = sequence;
    report.transfers.push_back({.sequence = sequence,
                                .received = 8,
                                .common = common,
                                .group = group,
                                .layer = 2,
                                .peer = -1,
                                .pass = Pass::kForward,
                                .dtype = dtype,
                                .operation = operation,
                                .stage = "halo",
                                .enqueued = 3.0 + 0.1 * rank,
                                .started = 3.0 + 0.1 * rank,
                                .done = std::nullopt});
    return report.transfers.back();
  }
  void Expect(std::initializer_list<std::string> parts, std::initializer_list<std::string> absent = {}) {
    const std::string text = StallVerdict(ranks_, "comm.timeout = 3");
    for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks: " << part;
    for (const std::string& part : absent) EXPECT_EQ(text.find(part), std::string::npos) << text << "\nhas: " << part;
  }

  std::vector<std::optional<RankReport>> ranks_;
};

TEST_F(VerdictTest, TheRankThatDoesNotCome) {
  Begin(4);
  for (const int rank : {0, 1, 3}) Enter(rank, 2, "comm.all_reduce");
  Expect({"communication stalled: all_reduce of halo, layer 2 forward, call 2 of ranks 0 to 3 has not ended for 3.3 s "
          "(comm.timeout = 3)",
          "\n  not arrived: rank 2\n", "rank 2 on node1, pid 102: in step 5", "done 9.0 s ago", "      work\n",
          "rank 0 on node0: waits for 3.0 s in all_reduce of halo"},
         {"rank 0 on node0, pid", "different", "each other"});
}

// Rank 3 keeps its pair waiting, and with it everybody else.
TEST_F(VerdictTest, NotThoseThatWaitForIt) {
  Begin(4);
  for (const int rank : {2, 3}) ranks_[rank]->groups.push_back({kPair, 0, 2, rank - 2, false, 0});
  Enter(2, 7, "comm.send_receive", 1);
  for (const int rank : {0, 1}) Enter(rank, 2, "comm.all_reduce");
  Expect({"send_receive of halo, layer 2 forward, call 7 of ranks 2, 3 has", "\n  not arrived: rank 3\n", "rank 3 on",
          "rank 0 on node0: waits for 3.0 s in all_reduce of halo, layer 2 forward, call 2, for ranks 2, 3"});
}

TEST_F(VerdictTest, OneThatIsStoppedThoughItHasArrived) {
  Begin(3);
  for (const int rank : {0, 1, 2}) Enter(rank, 2, "comm.all_reduce");
  ranks_[1]->stopped = true;
  ranks_[1]->state = "its process is stopped by a signal";
  ranks_[1]->threads = "";
  Expect({"rank 1 on node0, pid 101: its process is stopped by a signal; it was in step 5",
          "entered 3.1 s ago, not done", "no native stack"},
         {"not arrived"});
}

TEST_F(VerdictTest, OneOfWhichThereIsNoWord) {
  Begin(4);
  for (const int rank : {0, 1, 3}) Enter(rank, 2, "comm.all_reduce");
  ranks_[2].reset();
  Expect({"not arrived: rank 2", "rank 2: no word of it"});
  const std::string text = StallVerdict(ranks_, "comm.timeout = 3", /*all_told=*/true, {"n1", "n2", "n3", "n4"});
  EXPECT_NE(text.find("rank 2 on n3: no word of it"), std::string::npos) << text;
}

// Without a folder that all nodes see, the ranks of other nodes are not to blame for their silence.
TEST_F(VerdictTest, OtherNodesHadNoPlaceToLeaveWord) {
  Begin(4);
  Enter(0, 2, "comm.all_reduce");
  ranks_[2].reset();
  ranks_[3].reset();
  const std::string blamed = StallVerdict(ranks_, "comm.timeout = 3", /*all_told=*/false);
  EXPECT_NE(blamed.find("rank 1 on node0, pid 101: in step 5"), std::string::npos) << blamed;
  EXPECT_EQ(blamed.find("no word of it"), std::string::npos) << blamed;
  Enter(1, 2, "comm.all_reduce");
  const std::string nobody = StallVerdict(ranks_, "comm.timeout = 3", /*all_told=*/false);
  EXPECT_NE(nobody.find("on other nodes, of which nothing is known here: ranks 2, 3"), std::string::npos) << nobody;
}

TEST_F(VerdictTest, RanksThatDisagree) {
  for (const auto& [operation, common, dtype, said] :
       {std::tuple("comm.barrier", int64_t{0}, DType::kU8, "barrier"),
        std::tuple("comm.all_reduce", int64_t{32}, DType::kF32, "32 bytes in all"),
        std::tuple("comm.all_reduce", int64_t{64}, DType::kBf16, "BF16")}) {
    Begin(3);
    for (const int rank : {0, 2}) Enter(rank, 2, "comm.all_reduce");
    Enter(1, 2, operation, 0, common, dtype);
    Expect({"different operations under this number",
            "    rank 0: all_reduce of halo, layer 2 forward, call 2, F32, 64 bytes", "\n    rank 1: ", said,
            "rank 1 on node0, pid 101"},
           {"rank 0 on node0, pid"});
    const std::string lines = Disagreement(ranks_);  // as one that fails says it
    EXPECT_TRUE(lines.starts_with("\n  ranks called different operations")) << lines;
    EXPECT_NE(lines.find(said), std::string::npos) << lines;
  }
  Begin(3);
  for (const int rank : {0, 2}) Enter(rank, 2, "comm.all_reduce");
  EXPECT_EQ(Disagreement(ranks_), "");
}

// Messages between two ranks have numbers of their own, which say nothing about calls of all.
TEST_F(VerdictTest, MessagesOfPairsAreNoCallsOfAll) {
  const auto message = [&](int rank, int peer, int64_t sequence) -> RankReport::Transfer& {
    const int64_t arrived = ranks_[rank]->groups[0].arrived;
    RankReport::Transfer& transfer = Enter(rank, sequence, "comm.message");
    ranks_[rank]->groups[0].arrived = arrived;
    transfer.peer = peer;
    return transfer;
  };
  Begin(4);
  for (const int64_t sequence : {1, 2, 3}) {
    message(0, 2, sequence).done = 4;
    message(2, 0, sequence).done = 4;
  }
  for (const int rank : {0, 1, 2}) Enter(rank, 2, "comm.all_reduce");
  Expect({"all_reduce of halo, layer 2 forward, call 2 of ranks 0 to 3", "\n  not arrived: rank 3\n"},
         {"different", "message of"});

  Begin(4);
  message(2, 1, 3).done = 4;
  message(2, 0, 2).done = 4;
  message(0, 2, 2).done = 4;
  message(0, 2, 3);
  Expect({"message of halo, layer 2 forward, call 3 of ranks 0, 2", "\n  not arrived: rank 2\n"}, {"rank 1 on"});
  message(2, 0, 3);
  Expect({"call 3 of ranks 0, 2", "all its ranks have arrived, and nothing moves"}, {"rank 1 on", "rank 3 on"});
}

// Sizes that each rank has of its own are no disagreement; without a majority both are shown.
TEST_F(VerdictTest, OfTwoRanksEitherMayBeWrong) {
  Begin(2);
  Enter(0, 2, "comm.all_to_all", 0, -1);
  Enter(1, 2, "comm.all_to_all", 0, -1).received = 16;
  Expect({"all its ranks have arrived, and nothing moves", "pid 100", "pid 101"}, {"different"});
  Begin(2);
  Enter(0, 2, "comm.all_reduce");
  Enter(1, 2, "comm.all_gather");
  Expect({"rank 0: all_reduce", "rank 1: all_gather", "pid 100", "pid 101"});
}

TEST_F(VerdictTest, RanksThatWaitForEachOther) {
  Begin(2);
  for (const int rank : {0, 1}) ranks_[rank]->groups.push_back({kPair, 0, 2, rank, false, 0});
  Enter(0, 2, "comm.all_reduce");
  Enter(1, 1, "comm.broadcast", 1);
  Expect({"ranks wait for each other in different operations", "pid 100", "pid 101"});
}

TEST_F(VerdictTest, ARankThatNeverJoinedTheGroup) {
  Begin(4);
  for (const int rank : {0, 1, 3}) {
    ranks_[rank]->groups.push_back({kPair, 0, 4, rank, true, 0});
    Enter(rank, 0, "comm.connect_gpus", 1);
  }
  Expect({"connect_gpus of halo", "of ranks 0 to 3", "not arrived: rank 2"});
}

// GPU work is entered when it is enqueued; within graphs nothing is recorded.
TEST_F(VerdictTest, OnGpus) {
  Begin(2);
  for (const int rank : {0, 1}) ranks_[rank]->groups.push_back({kPair, 0, 2, rank, true, 0});
  Expect({"hosts wait for their GPUs", "rank 0 on", "rank 1 on"});
  Enter(0, 5, "comm.all_gather", 1).started.reset();
  Expect({"all_gather of halo, layer 2 forward, call 5 of ranks 0, 1", "not arrived: rank 1"});
}

TEST_F(VerdictTest, AReportSurvivesItsFile) {
  Begin(2);
  Enter(1, 2, "comm.all_reduce").stage = "a \"stage\"";
  const std::string path = testing::TempDir() + "/verdict_test_report";
  ranks_[1]->state = "state";
  std::ofstream(path) << SavedText(*ranks_[1], 7);
  const auto found = LoadReport(path);
  std::remove(path.c_str());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->by, 7);
  EXPECT_EQ(ReportText(found->report), ReportText(*ranks_[1]));
  EXPECT_NE(ReportText(found->report).find("a \"stage\""), std::string::npos);
  ASSERT_NE(found->report.waiting(), nullptr);
  EXPECT_EQ(found->report.waiting()->sequence, 2);
  EXPECT_FALSE(LoadReport(path).has_value());
}

TEST(RanksTextTest, ShortensRuns) {
  EXPECT_EQ(RanksText({3}), "3");
  EXPECT_EQ(RanksText({0, 1, 5, 6, 7, 9}), "0, 1, 5 to 7, 9");
}

}  // namespace
}  // namespace longspan
