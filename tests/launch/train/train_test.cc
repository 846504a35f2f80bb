// `longspan train` as a whole, on the Fibonacci task: it learns, golden losses, the same run twice, 4 ranks against
// one.
#include "tests/launch/train/train_run.h"

namespace longspan {
namespace {

class TrainTest : public testing::Test {
 protected:
  TrainRun Train(int ranks, const std::string& keys) {
    return TrainFibonacci(folder_, ranks, "runtime.device=CPU " + keys);
  }
  TempFolder folder_;
};

// The first losses of the preset. They move when the model, its initialisation, the data's order or the optimizer
// change.
TEST_F(TrainTest, GoldenLosses) {
  const TrainRun run = Train(1, "train.steps=20 train.eval_sequences=0 optimizer.schedule=CONSTANT");
  const std::vector<double> golden = {2.3082, 2.3089, 2.2896, 2.2393, 2.2277, 2.1476, 2.0911, 2.0897, 2.0190, 1.9672,
                                      1.8998, 1.8530, 1.7529, 1.6707, 1.6054, 1.5305, 1.4274, 1.3710, 1.2320, 1.1360};
  ASSERT_EQ(run.losses.size(), golden.size());
  for (size_t i = 0; i < golden.size(); ++i) EXPECT_NEAR(run.losses[i], golden[i], 1e-3) << "step " << i + 1;
}

TEST_F(TrainTest, LearnsTheRule) {
  const TrainRun run = Train(1, "");
  EXPECT_NEAR(run.losses.front(), std::log(10), 0.02);
  EXPECT_LT(run.held_out, 0.05);
}

TEST_F(TrainTest, SameRunSameBits) {
  const TrainRun first = Train(2, "train.steps=10 optimizer.warmup_steps=2 parallel.cp=2");
  const TrainRun second = Train(2, "train.steps=10 optimizer.warmup_steps=2 parallel.cp=2");
  EXPECT_EQ(first.parameters.size(), 16u);
  EXPECT_EQ(first.parameters, second.parameters);
  EXPECT_EQ(first.losses, second.losses);
}

// How chosen blocks travel changes no bit: gradients are added in the order of ranks by either exchange.
TEST_F(TrainTest, ExchangesLeaveTheSameBits) {
  const std::string keys = "train.steps=12 optimizer.warmup_steps=2 data.sequence_length=192 parallel.cp=3 ";
  const TrainRun gathered = Train(3, keys + "parallel.selected_exchange=GATHER");
  const TrainRun fetched = Train(3, keys + "parallel.selected_exchange=FETCH");
  EXPECT_EQ(fetched.parameters, gathered.parameters);
  EXPECT_LE(fetched.borrowed_mib, gathered.borrowed_mib);
  // Nor when it is made, and made again after ten steps, by what is faster.
  const TrainRun measured = Train(3, keys + "parallel.selected_exchange=AUTO");
  EXPECT_EQ(measured.parameters, gathered.parameters);
  EXPECT_EQ(measured.losses, gathered.losses);
  size_t choices = 0;
  for (size_t at = 0; (at = measured.said.find("  exchange   forward and backward", at)) != std::string::npos; ++at) {
    ++choices;
  }
  EXPECT_EQ(choices, 2U) << measured.said;
}

// Four ranks walk with one: to 1e-4 over the first 50 steps.
TEST_F(TrainTest, FourRanksFollowOne) {
  const TrainRun one = Train(1, "train.steps=50 optimizer.schedule=CONSTANT");
  EXPECT_EQ(one.borrowed_mib, 0);
  for (const int cp : {2, 4}) {
    const TrainRun four = Train(
        4,
        fmt::format("train.steps=50 optimizer.schedule=CONSTANT parallel.cp={} parallel.selected_exchange=FETCH", cp));
    ASSERT_EQ(four.losses.size(), one.losses.size());
    for (size_t i = 0; i < one.losses.size(); ++i) EXPECT_NEAR(four.losses[i], one.losses[i], 1e-4) << "step " << i + 1;
    // The hashes are those of replica 0's last sequence: another one with dp=2.
    if (cp == 4) {
      EXPECT_EQ(four.selections.front(), one.selections.front());
    }
    EXPECT_NEAR(four.held_out, one.held_out, 0.01);
    EXPECT_GT(four.borrowed_mib, 0);
  }
}

}  // namespace
}  // namespace longspan
