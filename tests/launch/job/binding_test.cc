// Who gets which GPU and which cores, and the text of the table.
#include "launch/job/binding.h"

#include <gtest/gtest.h>
#include <mpi.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>

#include "launch/job/cores.h"
#include "parallel/comm/nccl.h"
#include "runtime/error.h"

namespace longspan {
namespace {

TEST(Binding, RanksTakeGpusInTurn) {
  for (int place = 0; place < 8; ++place) {
    EXPECT_EQ(ChooseGpu("node7", place, 8, 8, false), place);
    EXPECT_EQ(ChooseGpu("node7", place, 8, 2, true), place % 2);
  }
  EXPECT_EQ(ChooseGpu("node7", 0, 1, 4, false), 0);
}

std::string Refusal(int ranks, int gpus, bool share) {
  try {
    ChooseGpu("node7", 0, ranks, gpus, share);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig);
    return error.what();
  }
  return "accepted";
}

// Else a transfer would be in its stream later than work enqueued after it.
TEST(Binding, NcclsCallsMustWait) {
  setenv("NCCL_COMM_BLOCKING", "0", 1);
  std::string message = "accepted";
  try {
    PrepareNccl(0, false);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig);
    message = error.what();
  }
  unsetenv("NCCL_COMM_BLOCKING");
  EXPECT_NE(message.find("NCCL_COMM_BLOCKING = 0"), std::string::npos) << message;
}

TEST(Binding, MoreRanksThanGpusIsAnErrorThatSaysWhatToDo) {
  const std::string message = Refusal(4, 2, false);
  EXPECT_NE(message.find("node7 has 4 ranks for 2 GPUs"), std::string::npos) << message;
  EXPECT_NE(message.find("parallel.share_gpu"), std::string::npos) << message;
  EXPECT_NE(Refusal(1, 0, true).find("node7 has no GPU"), std::string::npos);
}

TEST(Binding, CoresAreSharedEvenlyWholeAndOnce) {
  for (int cores = 0; cores <= 24; ++cores) {
    for (int ranks = 1; ranks <= 26; ++ranks) {
      SCOPED_TRACE(fmt::format("{} cores, {} ranks", cores, ranks));
      int next = 0;
      for (int place = 0; place < ranks; ++place) {
        const CoreShare share = ShareCores(cores, place, ranks);
        if (ranks > cores) {
          ASSERT_EQ(share.count, 0);
          continue;
        }
        ASSERT_EQ(share.first, next);
        ASSERT_TRUE(share.count == cores / ranks || share.count == cores / ranks + 1);
        next += share.count;
      }
      ASSERT_EQ(next, ranks > cores ? 0 : cores);
    }
  }
}

// An environment variable for the time of a test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value, 1);
  }
  ~Variable() { old_.empty() ? unsetenv(name_) : setenv(name_, old_.c_str(), 1); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::string old_;
};

// Two NUMA nodes of four cores with two CPUs each, as hwloc can pretend.
TEST(Binding, SharesOfAPretendedMachine) {
  const Variable machine("HWLOC_SYNTHETIC", "numa:2 core:4 pu:2");
  const CoreMap map;
  EXPECT_EQ(map.Allowed(), "0-15");
  EXPECT_EQ(map.Share("0-15", 0, 1), "0-15");
  EXPECT_EQ(map.Share("0-15", 1, 3), "6-11");
  EXPECT_EQ(map.Share("0-15", 2, 3), "12-15");
  EXPECT_EQ(map.Share("8-15", 1, 2), "12-15");
  EXPECT_EQ(map.Share("2-5,9", 1, 2), "4-5");  // half a core is none
  EXPECT_EQ(map.Share("8-15", 0, 5), "");
  EXPECT_EQ(map.Nodes("0-7"), "0");
  EXPECT_EQ(map.Nodes("7-8"), "0-1");
  EXPECT_EQ(map.Nodes(""), "");
  EXPECT_EQ(map.Near(""), "");
  EXPECT_EQ(map.Near("ffff:ff:1f.7"), "");
}

// This process, as it was when the test began, once it ends.
class OwnCores : public testing::Test {
 protected:
  void TearDown() override { map_.Bind(before_); }

  const CoreMap map_;
  const std::string before_ = map_.Own();
};

TEST_F(OwnCores, ABoundThreadAndTheThreadsItStarts) {
  ASSERT_NE(before_, "") << "hwloc cannot tell where this thread runs";
  const std::string first = before_.substr(0, before_.find_first_of(",-"));
  ASSERT_TRUE(map_.Bind(first));
  EXPECT_EQ(map_.Own(), first);
  EXPECT_EQ(map_.Bound(), first != map_.Allowed());
  std::string inherited;
  std::thread([&] { inherited = map_.Own(); }).join();
  EXPECT_EQ(inherited, first);
  EXPECT_FALSE(map_.Bind(""));
}

// Ranks that were bound so.
int64_t BoundBy(const Binding& binding, const std::string& who) {
  return std::count_if(binding.places.begin(), binding.places.end(),
                       [&](const RankPlace& p) { return p.bound == who; });
}

class BoundRanks : public OwnCores {
 protected:
  void SetUp() override {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    // The share of a whole machine, whatever the launcher of the test said.
    map_.Bind(map_.Allowed());
  }

  int rank_ = 0, size_ = 0;
};

TEST_F(BoundRanks, EveryRankHasAPlace) {
  const Binding binding = BindRank(DeviceKind::kCpu, false);
  EXPECT_EQ(binding.device->kind(), DeviceKind::kCpu);
  ASSERT_EQ(std::ssize(binding.places), size_);
  EXPECT_EQ(binding.places[rank_].cpus, map_.Own());
  EXPECT_EQ(binding.places[rank_].device, binding.device->name());
}

// Equal parts of the machine when there are cores for all, else everything for everyone.
TEST_F(BoundRanks, RanksOfANodeShareItsCores) {
  const Binding binding = BindRank(DeviceKind::kCpu, false);
  const std::string share = map_.Share(map_.Allowed(), rank_, size_);
  EXPECT_EQ(map_.Own(), share.empty() ? map_.Allowed() : share);
  const bool bound = !share.empty() && share != map_.Allowed();
  EXPECT_EQ(BoundBy(binding, bound ? "by longspan" : "unbound"), size_);
}

TEST_F(BoundRanks, TheUsersWordAgainstBinding) {
  const Variable off("LONGSPAN_BIND", "0");
  const Binding binding = BindRank(DeviceKind::kCpu, false);
  EXPECT_EQ(map_.Own(), map_.Allowed());
  EXPECT_EQ(BoundBy(binding, "unbound"), size_);
}

TEST_F(BoundRanks, WhatTheLauncherBoundStays) {
  const std::string all = map_.Allowed(), first = all.substr(0, all.find_first_of(",-"));
  if (first == all) GTEST_SKIP() << "one CPU: nothing to bind to";
  ASSERT_TRUE(map_.Bind(first));
  const Binding binding = BindRank(DeviceKind::kCpu, false);
  EXPECT_EQ(map_.Own(), first);
  EXPECT_EQ(BoundBy(binding, "by launcher"), size_);
}

// A thread for each CPU of a rank; ranks on the same CPUs share them out, one thread at least.
TEST_F(BoundRanks, ThreadsFollowTheCpus) {
  const Variable threads("OMP_NUM_THREADS", "");
  unsetenv("OMP_NUM_THREADS");
  const int before = omp_get_max_threads();
  const std::string all = map_.Allowed(), first = all.substr(0, all.find_first_of(",-"));
  const Binding shared = BindRank(DeviceKind::kCpu, false);
  const bool apart = !map_.Share(all, rank_, size_).empty();
  EXPECT_EQ(omp_get_max_threads(), std::max(1, omp_get_num_procs() / (apart ? 1 : size_)));
  ASSERT_TRUE(map_.Bind(first));
  const Binding narrow = BindRank(DeviceKind::kCpu, false);
  EXPECT_EQ(omp_get_max_threads(), 1);
  setenv("OMP_NUM_THREADS", "3", 1);
  omp_set_num_threads(3);
  const Binding told = BindRank(DeviceKind::kCpu, false);
  EXPECT_EQ(omp_get_max_threads(), 3);
  omp_set_num_threads(before);
}

}  // namespace
}  // namespace longspan
