// Weights that differ between ranks: named, on every rank.
#include "launch/train/replicas.h"

#include <gtest/gtest.h>

#include "launch/job/world.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

TEST(Replicas, TheOneThatDiffersIsNamed) {
  Job job(DeviceKind::kCpu, {.cp = 1});
  const int rank = job.mesh().host_world().rank(), ranks = job.mesh().host_world().size();
  RequireEqualReplicas(job, 7, 0xabcd);
  for (int odd = 0; odd < ranks && ranks > 1; ++odd) {
    const std::string named = fmt::format("rank {} on {} has 0000000000000bad", odd, NodeName());
    const auto compare = [&] { RequireEqualReplicas(job, 8, rank == odd ? 0xbad : 0xabcd); };
    ExpectError(ExitCode::kRankFailed, {"step 8", named}, compare);
    if (ranks > 2) {
      ExpectError(ExitCode::kRankFailed, {fmt::format("the other {} have 000000000000abcd", ranks - 1)}, compare);
    } else {
      ExpectError(ExitCode::kRankFailed, {fmt::format("rank {} on", 1 - odd)}, compare);
    }
  }
}

}  // namespace
}  // namespace longspan
