// Which variables are told of, and what ranks that have others are told.
#include "launch/job/environment.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdlib>

namespace longspan {
namespace {

TEST(Environment, OnlyWhatChangesARun) {
  setenv("NCCL_TEST_ONLY", "two words", 1);
  setenv("SOMETHING_ELSE", "1", 1);
  const Environment found = ReadEnvironment();
  unsetenv("NCCL_TEST_ONLY");
  EXPECT_EQ(found.at("NCCL_TEST_ONLY"), "two words");
  EXPECT_FALSE(found.contains("SOMETHING_ELSE"));
  EXPECT_FALSE(found.contains("PATH"));
  for (const auto& [name, value] : found) EXPECT_FALSE(name.starts_with("OMPI_MCA_orte")) << name;  // mpirun's own
  EXPECT_EQ(EnvironmentText({{"A", "1"}, {"B", "x y"}}), "A=1 B='x y'");
}

TEST(Environment, DifferencesAreNamed) {
  const auto world = MakeMpiWorld();
  const int rank = world->rank(), last = world->size() - 1;
  Environment own = {{"NCCL_DEBUG", "INFO"}, {"CUDA_VISIBLE_DEVICES", std::to_string(rank)}};
  EXPECT_EQ(DifferentEnvironment(*world, own), "");  // each rank may see GPUs of its own
  if (last == 0) return;
  if (rank == last) own = {{"OMP_NUM_THREADS", "2"}};
  const std::string warning = DifferentEnvironment(*world, own);
  EXPECT_EQ(warning.find("warning: the ranks have different environments (mpirun -x NAME"), 0u) << warning;
  const std::string there = " on rank " + std::to_string(last) + "\n";
  EXPECT_NE(warning.find("NCCL_DEBUG: NCCL_DEBUG=INFO on rank 0, not set" + there), std::string::npos) << warning;
  EXPECT_NE(warning.find("OMP_NUM_THREADS: not set on rank 0, OMP_NUM_THREADS=2" + there), std::string::npos)
      << warning;
}

}  // namespace
}  // namespace longspan
