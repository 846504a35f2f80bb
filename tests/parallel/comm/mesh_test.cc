// The mesh: every way to cut the world into dp x cp, and those that do not work.
#include "parallel/comm/mesh.h"

#include <gtest/gtest.h>

#include <string>

#include "runtime/error.h"

namespace longspan {
namespace {

TEST(Mesh, CpGroupsAreNeighbours) {
  const auto device = MakeCpuDevice();
  const auto stream = device->MakeStream("test");
  const int size = MakeMpiWorld()->size();
  for (int cp = 1; cp <= size; ++cp) {
    if (size % cp != 0) continue;
    for (int dp : {0, size / cp}) {
      const Mesh mesh(MakeMpiWorld(), dp, cp);
      const int rank = mesh.world().rank();
      EXPECT_EQ(mesh.cp_size(), cp);
      EXPECT_EQ(mesh.dp_size(), size / cp);
      EXPECT_EQ(mesh.dp_index() * cp + mesh.cp_index(), rank);
      // Who is in a group, seen by its sum of world ranks.
      int64_t in_cp = rank, in_dp = rank;
      mesh.cp().AllReduce(*stream, HostView(&in_cp, {1}), ReduceOp::kSum);
      mesh.dp().AllReduce(*stream, HostView(&in_dp, {1}), ReduceOp::kSum);
      stream->Synchronize();
      int64_t expected_cp = 0, expected_dp = 0;
      for (int i = 0; i < cp; ++i) expected_cp += mesh.dp_index() * cp + i;
      for (int i = 0; i < size / cp; ++i) expected_dp += i * cp + mesh.cp_index();
      EXPECT_EQ(in_cp, expected_cp);
      EXPECT_EQ(in_dp, expected_dp);
    }
  }
}

void ExpectRefused(int64_t dp, int64_t cp) {
  try {
    Mesh(MakeMpiWorld(), dp, cp);
    ADD_FAILURE() << "dp = " << dp << ", cp = " << cp << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig);
    const std::string message = error.what();
    EXPECT_NE(message.find(fmt::format("parallel.cp = {}, parallel.dp = {}", cp, dp)), std::string::npos) << message;
  }
}

TEST(Mesh, RefusesWhatIsNotTheWorld) {
  const int size = MakeMpiWorld()->size();
  ExpectRefused(0, size + 1);
  ExpectRefused(2, size);
  ExpectRefused(1, 0);
  ExpectRefused(-1, -size);
  if (size % 2 == 1 && size > 1) ExpectRefused(0, 2);
}

}  // namespace
}  // namespace longspan
