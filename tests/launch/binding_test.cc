// Who gets which GPU, and the text of the table.
#include "launch/binding.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <string>

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

TEST(Binding, MoreRanksThanGpusIsAnErrorThatSaysWhatToDo) {
  const std::string message = Refusal(4, 2, false);
  EXPECT_NE(message.find("node7 has 4 ranks for 2 GPUs"), std::string::npos) << message;
  EXPECT_NE(message.find("parallel.share_gpu"), std::string::npos) << message;
  EXPECT_NE(Refusal(1, 0, true).find("node7 has no GPU"), std::string::npos);
}

TEST(Binding, Ranges) {
  EXPECT_EQ(Ranges({}), "");
  EXPECT_EQ(Ranges({5}), "5");
  EXPECT_EQ(Ranges({0, 1, 2, 3, 8, 10, 11}), "0-3,8,10-11");
}

TEST(Binding, TableHasALineForEachRank) {
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const Binding binding = BindRank(DeviceKind::kCpu, false);
  EXPECT_EQ(binding.device->kind(), DeviceKind::kCpu);
  const auto lines = std::count(binding.table.begin(), binding.table.end(), '\n');
  EXPECT_EQ(lines, rank == 0 ? size + 1 : 0) << binding.table;
}

}  // namespace
}  // namespace longspan
