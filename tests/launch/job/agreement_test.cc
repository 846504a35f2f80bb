// Ranks that do not have the same are told what differs, all of them.
#include "launch/job/agreement.h"

#include <mpi.h>

#include "tests/support/files.h"

namespace longspan {
namespace {

class AgreementTest : public testing::Test {
 protected:
  const std::unique_ptr<Communicator> world_ = MakeMpiWorld();
  const int rank_ = world_->rank(), last_ = world_->size() - 1;
};

TEST_F(AgreementTest, TheSameIsAccepted) {
  RequireAgreement(*world_, ExitCode::kConfig, "the configuration", {});
  RequireAgreement(*world_, ExitCode::kConfig, "the configuration",
                   {{"a", "1", "here"}, {"b.c", "", std::to_string(rank_)}});
}

TEST_F(AgreementTest, EveryDifferenceIsNamedOnEveryRank) {
  if (last_ == 0) GTEST_SKIP() << "one rank agrees";
  const bool other = rank_ == last_;
  ExpectError(
      ExitCode::kData,
      {"disagree on the data", "train.steps: 5 on rank 0, 6 on rank " + std::to_string(last_),
       "name: \"x\" (a file) on rank 0, \"\" (a file) on rank"},
      [&] {
        RequireAgreement(
            *world_, ExitCode::kData, "the data",
            {{"same", "1", ""}, {"train.steps", other ? "6" : "5", ""}, {"name", other ? "\"\"" : "\"x\"", "a file"}});
      });
  // A key that one program does not know.
  std::vector<Claim> claims = {{"program", other ? "new" : "old", ""}};
  if (other) claims.push_back({"added", "1", ""});
  ExpectError(ExitCode::kConfig, {"program: old on rank 0, new on rank", "added: nothing on rank 0, 1 on rank"},
              [&] { RequireAgreement(*world_, ExitCode::kConfig, "the configuration", claims); });
}

}  // namespace
}  // namespace longspan
