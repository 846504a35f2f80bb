// What is not finite is named: the ranks of the loss, and the gradient that the backward comes to first.
#include "launch/train/non_finite.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launch/job/world.h"

namespace longspan {
namespace {

TEST(NonFinite, TheFirstOfTheBackwardIsNamedWithItsRanks) {
  Job job(DeviceKind::kCpu, {.cp = 1});
  const int rank = job.mesh().host_world().rank(), ranks = job.mesh().host_world().size();
  ParamTable params;
  for (const char* name : {"a", "b", "c"}) params.Add(name, {7, 5}, {}, true);
  Ops ops = MakeCpuOps();
  Arena arena;
  params.Reserve(arena, DType::kF32, DType::kF32);
  arena.Commit(job.device());
  params.Bind();
  const auto stream = job.device().MakeStream("compute");
  params.Initialise(job.device(), ops, *stream, 1);
  const auto gradient = [&](int param) { return params.params()[param]->gradient.As<float>(); };
  const auto named = [&](double loss) { return NameNonFinite(job, *stream, params, loss); };

  EXPECT_NE(named(1).find("are finite when they are computed again"), std::string::npos);
  const int odd = ranks - 1;
  const std::string who = fmt::format("rank {} on {}", odd, NodeName());
  if (rank == odd) gradient(1)[34] = NAN;
  gradient(0)[0] = INFINITY;
  EXPECT_EQ(named(1), fmt::format("not finite: the gradient of b of {} is the first of the backward", who));
  EXPECT_EQ(named(rank == odd ? NAN : 1).find("not finite: the loss of " + who + "; the gradient of b of " + who), 0U);
  if (rank == odd) gradient(1)[34] = 0;
  const std::string all = ranks > 1 ? "all ranks" : who;
  EXPECT_EQ(named(INFINITY), fmt::format("not finite: the loss of {0}; the gradient of a of {0} is the first of the "
                                         "backward",
                                         all));
}

}  // namespace
}  // namespace longspan
