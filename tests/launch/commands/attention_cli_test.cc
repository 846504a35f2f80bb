// The program `longspan attention` itself: under mpirun at several ranks, and when it must refuse.
#include <gtest/gtest.h>

#include "tests/launch/commands/attention_case_file.h"
#include "tests/support/files.h"
#include "tests/support/program.h"

namespace longspan::test {
namespace {

class AttentionCli : public ::testing::Test {
 protected:
  int Run(int ranks, const std::string& arguments) {
    return RunProgram(folder_, ranks, "attention " + arguments, &said_);
  }

  std::string Files(const std::string& output) const {
    return fmt::format("--case '{}' --out '{}'", folder_ / "case", folder_ / output);
  }

  static NsaCase Documents() {
    NsaCase c;
    c.tokens = 150;
    c.heads = 4;
    c.groups = 2;
    c.nsa = {.block = 8, .stride = 4, .select_block = 8, .select = 4, .window = 21};
    c.rope_theta = 100;
    c.doc_start = PackDocuments({61, 5, 78}, 8);
    c.tokens = static_cast<int64_t>(c.doc_start.size());
    Randomize(c, 3);
    return c;
  }

  TempFolder folder_;
  std::string said_;
};

TEST_F(AttentionCli, SameBytesAtOneAndAtThreeRanks) {
  CaseFile(Documents(), DType::kF32).Write(folder_ / "case");
  ASSERT_EQ(Run(1, Files("one")), 0) << said_;
  ASSERT_EQ(Run(3, Files("three")), 0) << said_;
  ASSERT_EQ(Run(3, Files("other") + " --layout CONTIGUOUS --selected-exchange FETCH"), 0) << said_;
  const SafetensorsFile one = SafetensorsFile::Open(folder_ / "one");
  EXPECT_TRUE(one.Has("d_phi_k.weight1"));
  EXPECT_TRUE(SameForward(SafetensorsFile::Open(folder_ / "three"), one));
  EXPECT_TRUE(SameForward(SafetensorsFile::Open(folder_ / "other"), one));
}

TEST_F(AttentionCli, RefusesWithItsExitCode) {
  CaseFile file(Documents(), DType::kF32);
  file.tensors.erase("v_slc");
  file.Write(folder_ / "case");
  for (int ranks : {1, 3}) {
    EXPECT_EQ(Run(ranks, Files("out")), static_cast<int>(ExitCode::kData)) << said_;
    EXPECT_NE(said_.find("expected a tensor \"v_slc\""), std::string::npos) << said_;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
  }
  EXPECT_EQ(Run(1, "--out x"), static_cast<int>(ExitCode::kUsage)) << said_;
}

}  // namespace
}  // namespace longspan::test
