// The program `longspan attention` itself: under mpirun at several ranks, and when it must refuse.
#include <gtest/gtest.h>

#include "launch/train/selection_file.h"
#include "tests/launch/commands/attention_case_file.h"
#include "tests/support/files.h"
#include "tests/support/oracle.h"
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

  std::string Option(const std::string& name, const std::string& file) const {
    return fmt::format(" --{} '{}'", name, folder_ / file);
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

// What any ranks record, small, and what a result holds are the same choice; given back, it is taken.
TEST_F(AttentionCli, RecordsItsChoiceAndTakesItBack) {
  const NsaCase c = Documents();
  CaseFile(c, DType::kF32).Write(folder_ / "case");
  ASSERT_EQ(Run(1, Files("free") + Option("record-selection", "one")), 0) << said_;
  const SafetensorsFile free = SafetensorsFile::Open(folder_ / "free");
  EXPECT_EQ(SafetensorsFile::Open(folder_ / "one").Get(kSelected).dtype, DType::kU16);
  EXPECT_EQ(SelectionFile(folder_ / "one", 8).Read(kSelected), SelectionFile(folder_ / "free", 8).Read(kSelected));
  for (const int ranks : {2, 4}) {
    ASSERT_EQ(Run(ranks, Files("given") + Option("record-selection", "several")), 0) << said_;
    EXPECT_EQ(ReadFile(folder_ / "several"), ReadFile(folder_ / "one")) << ranks << " ranks";
  }
  for (const char* const from : {"one", "free"}) {
    for (const int ranks : {1, 2, 4}) {
      ASSERT_EQ(Run(ranks, Files("given") + Option("selected", from)), 0) << said_;
      EXPECT_TRUE(SameForward(SafetensorsFile::Open(folder_ / "given"), free)) << from << ", " << ranks << " ranks";
    }
  }

  // Other blocks than the case would choose: every query its own alone.
  std::vector<int32_t> own(c.tokens * c.groups * c.nsa.select, -1);
  for (int64_t row = 0; row < c.tokens * c.groups; ++row) {
    own[row * c.nsa.select] = static_cast<int32_t>(row / c.groups / c.nsa.select_block);
  }
  SelectionWriter writer(c.nsa.select_block);
  writer.Add(kSelected, own, {c.tokens, c.groups, c.nsa.select});
  writer.Write(folder_ / "own");
  ASSERT_EQ(Run(2, Files("given") + Option("selected", "own")), 0) << said_;
  EXPECT_TRUE(RmsClose("out", Get(SafetensorsFile::Open(folder_ / "given"), "out"), Oracle(c, &own).out, 1e-5));

  // Of another length of blocks, of another shape, beside one in the case.
  const auto refuse = [&](const std::string& part) {
    for (const int ranks : {1, 2}) {
      EXPECT_EQ(Run(ranks, Files("out") + Option("selected", "own")), static_cast<int>(ExitCode::kData)) << said_;
      EXPECT_NE(said_.find(part), std::string::npos) << said_;
    }
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
  };
  SelectionWriter(16).Write(folder_ / "own");
  refuse("own: metadata: select_block: expected blocks of 8 tokens, found 16");
  SelectionWriter shorter(8);
  shorter.Add(kSelected, std::span(own).first(c.groups * c.nsa.select), {1, c.groups, c.nsa.select});
  shorter.Write(folder_ / "own");
  refuse(fmt::format("own: selected: expected [S,G,N] = [{},2,4], found [1,2,4]", c.tokens));
  CaseFile frozen(c, DType::kF32);
  frozen.Freeze(c, own);
  frozen.Write(folder_ / "case");
  refuse("case: selected: expected none beside ");
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
