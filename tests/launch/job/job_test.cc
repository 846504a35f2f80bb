// What a job makes goes in the right order, and what its hosts tell each other.
#include "launch/job/job.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>

namespace longspan {
namespace {

int Ranks() {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

Job MakeJob() { return Job(DeviceKind::kCpu, {.cp = Ranks()}); }

TEST(Job, ReducesAllNumbersAtOnce) {
  Job job = MakeJob();
  const Mesh& mesh = job.mesh();
  EXPECT_EQ(mesh.cp_size(), Ranks());
  EXPECT_EQ(job.root(), mesh.cp_index() == 0);
  const double rank = mesh.cp_index(), ranks = Ranks();
  const std::vector<double> found =
      job.Reduce({{rank + 1, ReduceOp::kSum}, {-rank, ReduceOp::kMax}, {job.root() ? NAN : 1, ReduceOp::kMax}});
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0], ranks * (ranks + 1) / 2);
  EXPECT_EQ(found[1], 0);
  EXPECT_TRUE(std::isnan(found[2]));
  EXPECT_EQ(job.Reduce(rank, ReduceOp::kMax), ranks - 1);
}

// The bits are those of a sum from rank 0 on: in any other order the ones would be lost or kept in other places.
TEST(Job, SumsInTheOrderOfRanks) {
  Job job = MakeJob();
  const auto of = [](int rank) { return rank % 2 == 0 ? std::ldexp(1.0, 53) : 1.0 - std::ldexp(1.0, 53); };
  double expected = of(0);
  for (int rank = 1; rank < Ranks(); ++rank) expected += of(rank);
  EXPECT_EQ(job.Reduce(of(job.mesh().cp_index()), ReduceOp::kSum), expected);
}

TEST(Job, WhatItMakesGoesLastFirst) {
  struct Mark {
    Mark(int number, std::vector<int>* gone) : number(number), gone(gone) {}
    ~Mark() { gone->push_back(number); }
    int number;
    std::vector<int>* gone;
  };
  std::vector<int> gone;
  {
    Job job = MakeJob();
    EXPECT_EQ(job.Make<Mark>(1, &gone).number, 1);
    job.Make<Mark>(2, &gone);
    job.Make<Mark>(3, &gone);
    EXPECT_TRUE(gone.empty());
  }
  EXPECT_EQ(gone, (std::vector<int>{3, 2, 1}));
}

}  // namespace
}  // namespace longspan
