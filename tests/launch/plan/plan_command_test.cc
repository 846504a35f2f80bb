// `longspan plan` as a user runs it.
#include <gtest/gtest.h>

#include "tests/support/program.h"

namespace longspan {
namespace {

class PlanCommand : public testing::Test {
 protected:
  void Expect(const std::string& arguments, ExitCode code, std::initializer_list<std::string> parts) {
    std::string said;
    const int found = RunProgram(
        folder_, 1, fmt::format("plan --config '{}/configs/nsa_102m.textproto' {}", LONGSPAN_SOURCE, arguments), &said);
    EXPECT_EQ(found, static_cast<int>(code)) << said;
    for (const std::string& part : parts) EXPECT_NE(said.find(part), std::string::npos) << said << "\nlacks: " << part;
  }
  TempFolder folder_;
};

TEST_F(PlanCommand, OfManyRanksNeedsNone) {
  Expect("parallel.cp=16 --world 1024 train.sequences_per_step=128", ExitCode::kOk,
         {"Ranks: 1024 = dp 64 x cp 16", "on gpu, BF16", "attention.selected_backward", "comm.reduce_scatter",
          "over 1024 ranks", "dense-equivalent", "  without what NCCL takes, known for up to eight ranks"});
  Expect("parallel.cp=2", ExitCode::kOk, {"\n  scratch  ", "\n  NCCL  "});
}

TEST_F(PlanCommand, SaysWhatItAssumesWhereTheRunChooses) {
  Expect("parallel.cp=2 parallel.selected_exchange=AUTO", ExitCode::kOk,
         {"AUTO: memory is FETCH's, the step is planned as one of GATHER", "attention.slc.exchange.staging"});
}

TEST_F(PlanCommand, TimesNeedRates) {
  const std::string rates = folder_ / "rates.json";
  WriteFile(rates, R"({"device":"a device","cases":[{"sizes":{"tokens":65536,"heads":16,"groups":1,"key_width":64,
    "value_width":64},"matmul_tflops":800,"copy_gbps":2000,"stages":[]}]})");
  Expect(fmt::format("--rates '{}'", rates), ExitCode::kOk, {"a device", "\n  step  ", "tokens/s"});
  Expect(fmt::format("parallel.cp=2 --rates '{}'", rates), ExitCode::kOk, {"without transfers", "--link-gbps"});
  Expect(fmt::format("parallel.cp=2 --rates '{}' --link-gbps 250", rates), ExitCode::kOk,
         {"all hidden", "none hidden"});
  Expect("--link-gbps 250", ExitCode::kUsage, {"--rates"});
  Expect("--rates nowhere.json", ExitCode::kIo, {"nowhere.json: cannot open"});
}

TEST_F(PlanCommand, RefusesWhatTrainingRefuses) {
  Expect("parallel.cp=3 --world 4", ExitCode::kConfig, {"parallel.cp"});
  Expect("model.layer=3", ExitCode::kConfig, {"model.layer"});
  Expect("--coverage 2", ExitCode::kUsage, {"--coverage"});
}

}  // namespace
}  // namespace longspan
