// `longspan eval`: the loss that training says, by position, on any ranks; the retrieval task; and what is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/train/position_losses.h"
#include "tests/launch/train/train_run.h"

namespace longspan {
namespace {

using nlohmann::json;

class EvalCommand : public testing::Test {
 protected:
  // The numbers of `eval RUN ARGUMENTS`.
  json Eval(int ranks, const std::string& arguments) {
    const std::string path = folder_ / "eval.json";
    EXPECT_EQ(RunProgram(folder_, ranks, fmt::format("eval '{}' --json '{}' {}", run_, path, arguments), &said_), 0)
        << said_;
    return json::parse(ReadFile(path));
  }
  void ExpectRefused(int code, const std::string& arguments, const std::string& text) {
    EXPECT_EQ(RunProgram(folder_, 1, "eval " + arguments, &said_), code) << said_;
    EXPECT_NE(said_.find(text), std::string::npos) << said_ << "\nlacks: " << text;
  }

  TempFolder folder_;
  const std::string run_ = folder_ / "runs/fibonacci";
  std::string said_;
};

TEST_F(EvalCommand, SaysWhatTrainingSaidOnAnyRanks) {
  const TrainRun run =
      TrainFibonacci(folder_, 1, "runtime.device=CPU train.steps=12 optimizer.warmup_steps=4 train.eval_sequences=8");
  const json alone = Eval(1, "--retrieval 2 --pairs 1,2 --lengths 64,128 --depths 3");
  EXPECT_NEAR(alone["loss"], run.held_out, 1e-9 * run.held_out);
  for (const int ranks : {1, 2, 4}) {
    const json found =
        ranks == 1 ? alone
                   : Eval(ranks, ranks == 4 ? "parallel.cp=2"
                                            : "parallel.cp=2 --retrieval 2 --pairs 1,2 --lengths 64,128 --depths 3");
    EXPECT_NEAR(found["loss"], alone["loss"], 1e-5 * static_cast<double>(alone["loss"]));
    EXPECT_EQ(found["labels"], 8 * 126);
    EXPECT_EQ(found["sequences"], 8);
    double sum = 0;
    int64_t labels = 0;
    for (const json& bucket : found["positions"]) {
      sum += static_cast<double>(bucket["loss"]) * static_cast<double>(bucket["labels"]);
      labels += static_cast<int64_t>(bucket["labels"]);
    }
    EXPECT_EQ(labels, found["labels"]);
    EXPECT_NEAR(sum / static_cast<double>(labels), found["loss"], 1e-9);
    if (ranks != 4) {
      EXPECT_EQ(found["retrieval"], alone["retrieval"]);
    }
  }
  EXPECT_EQ(json::parse(ReadFile(run_ + "/eval.json"))["step"], 12);
  ASSERT_EQ(alone["retrieval"].size(), 2 * 2 * 3);
  for (const json& cell : alone["retrieval"]) EXPECT_EQ(cell["asked"], 2);

  ExpectRefused(74, folder_ / "nowhere", "expected a folder");
  ExpectRefused(78, run_ + " model.layers=3", "model.layers = 3: the checkpoint's model has 2");
  ExpectRefused(64, run_ + " --retrieval 1 --lengths 256", "expected at most data.sequence_length = 128, found 256");
  ExpectRefused(64, run_ + " --retrieval 1 --pairs 16 --lengths 128", "16 pairs and a question need 136 tokens");
}

TEST(PositionLosses, BucketsDouble) {
  Batch part;
  part.targets = {1, -1, 1, 1};
  part.positions = {0, 15, 16, 99};
  PositionLosses losses(100);
  losses.Add(part, std::vector<double>{1, 2, 3, 5});
  const auto buckets = losses.own();
  ASSERT_EQ(buckets.size(), 4);
  EXPECT_EQ(buckets[0].labels, 1);
  EXPECT_EQ(buckets[0].loss_sum, 1);
  EXPECT_EQ(buckets[1].begin, 16);
  EXPECT_EQ(buckets[1].loss_sum, 3);
  EXPECT_EQ(buckets[3].end, 100);
  EXPECT_EQ(buckets[3].loss_sum, 5);
  EXPECT_EQ(PositionLosses(65536).own().size(), 9);
}

}  // namespace
}  // namespace longspan
