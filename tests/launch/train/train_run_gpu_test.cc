// `longspan train` on GPUs as a whole: the same run twice gives the same bits, on one rank and on two that share a GPU,
// as graphs or not, whatever is recomputed or offloaded; and in F32 the first losses are the CPU's.
#include "tests/launch/train/train_run.h"
#include "tests/support/gpu_sides.h"

namespace longspan {
namespace {

// Sizes that tensor cores take; two documents' worth of blocks to choose from.
constexpr const char* kModel =
    "model.hidden=128 model.key_width=32 model.value_width=32 model.ffn=192 model.vocab=16 model.nsa.block=16 "
    "model.nsa.stride=8 model.nsa.select_block=16 model.nsa.window=24 data.sequence_length=256 "
    "train.sequences_per_step=2 train.eval_sequences=0 optimizer.schedule=CONSTANT ";

class TrainGpu : public testing::Test {
 protected:
  TrainRun Train(int ranks, const std::string& keys) { return TrainFibonacci(folder_, ranks, kModel + keys); }

  // 50 steps in BF16, twice.
  void ExpectSameBits(int ranks, const std::string& keys) {
    const std::string all = "train.steps=50 runtime.device=GPU runtime.dtype=BF16 " + keys;
    const TrainRun first = Train(ranks, all), second = Train(ranks, all);
    ASSERT_EQ(first.losses.size(), 50U);
    ASSERT_EQ(second.losses.size(), 50U);
    for (size_t i = 0; i < 50; ++i) {
      ASSERT_EQ(first.losses[i], second.losses[i]) << "loss of step " << i + 1 << ", the first that differs";
      ASSERT_EQ(first.selections[i], second.selections[i]) << "selection of step " << i + 1;
    }
    EXPECT_EQ(first.parameters.size(), 16U);
    EXPECT_EQ(first.parameters, second.parameters);
    EXPECT_NEAR(first.losses.front(), std::log(16), 0.3);
    EXPECT_LT(first.losses.back(), first.losses.front() - 0.3) << "50 steps taught nothing";
  }

  TempFolder folder_;
};

TEST_F(TrainGpu, SameRunSameBits) { ExpectSameBits(1, ""); }

TEST_F(TrainGpu, SameRunSameBitsOnTwoRanks) { ExpectSameBits(2, "parallel.cp=2 parallel.share_gpu=true"); }

// A step has two micro-batches: a graph without and one with the reduction of gradients.
TEST_F(TrainGpu, GraphsAndRecomputationChangeNothing) {
  // Of more than two blocks some are offloaded.
  const std::string steps =
      "model.layers=4 train.steps=12 optimizer.warmup_steps=2 runtime.device=GPU runtime.dtype=BF16 ";
  for (const int ranks : {1, 2}) {
    const std::string all = steps + (ranks > 1 ? "parallel.cp=2 parallel.share_gpu=true " : "");
    const TrainRun plain = Train(ranks, all + "runtime.graphs=OFF");
    EXPECT_EQ(plain.parameters.size(), 16U);
    for (const char* const keys :
         {"", "train.recompute=SELECTIVE train.offload=true", "train.recompute=FULL train.offload=true"}) {
      const TrainRun run = Train(ranks, all + "runtime.graphs=ON " + keys);
      EXPECT_EQ(run.losses, plain.losses) << ranks << " ranks, " << keys;
      EXPECT_EQ(run.parameters, plain.parameters) << ranks << " ranks, " << keys;
      // Steps 3 to 5, for which profile.steps is, are enqueued kernel by kernel between others.
      EXPECT_NE(run.said.find("as runtime.graphs says"), std::string::npos) << run.said;
      EXPECT_NE(run.report.find("3 of the steps ran kernel by kernel"), std::string::npos) << run.report;
      EXPECT_NE(run.report.find(ranks > 1 ? "halo backward" : "compressed backward"), std::string::npos) << run.report;
      const bool offload = std::string(keys).find("offload") != std::string::npos;
      EXPECT_EQ(run.said.find("  offloaded ") != std::string::npos, offload) << run.said;
    }
    if (ranks == 1) continue;
    // AUTO is measured again before step 11.
    for (const char* const exchange : {"FETCH train.recompute=SELECTIVE", "AUTO"}) {
      const TrainRun run = Train(ranks, all + "parallel.selected_exchange=" + exchange);
      EXPECT_EQ(run.losses.size(), plain.losses.size());
      for (size_t i = 0; i < run.losses.size(); ++i) EXPECT_NEAR(run.losses[i], plain.losses[i], 1e-3) << exchange;
    }
  }
}

// Within graphs, too.
TEST_F(TrainGpu, TakesBackTheSelectionThatItRecorded) {
  const std::string all = "runtime.device=GPU runtime.dtype=BF16 optimizer.warmup_steps=0 train.steps=1 ";
  const auto file = [&](const char* name) { return fmt::format("'{}' ", folder_ / name); };
  const std::string two = "parallel.cp=2 parallel.share_gpu=true train.recompute=SELECTIVE ";
  Train(1, all + "train.record_selection=" + file("one"));
  Train(2, all + "train.record_selection=" + file("two") + two);
  for (const auto& [ranks, keys] : {std::pair(1, std::string("runtime.graphs=ON ")), std::pair(2, two)}) {
    const TrainRun own = Train(ranks, all + keys);
    const TrainRun given = Train(ranks, all + "train.frozen_selection=" + file(ranks == 1 ? "one" : "two") + keys);
    EXPECT_EQ(given.losses, own.losses) << keys;
    EXPECT_EQ(given.selections, own.selections) << keys;
    EXPECT_EQ(given.parameters, own.parameters) << keys;
  }
}

TEST_F(TrainGpu, FirstLossesAreTheCpus) {
  const std::string steps = "train.steps=20 runtime.dtype=F32 runtime.device=";
  const TrainRun cpu = Train(1, steps + "CPU"), gpu = Train(1, steps + "GPU");
  ASSERT_EQ(cpu.losses.size(), 20U);
  ASSERT_EQ(gpu.losses.size(), 20U);
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_NEAR(gpu.losses[i] / cpu.losses[i], 1, 1e-3)
        << "step " << i + 1 << ": " << gpu.losses[i] << " on the GPU, " << cpu.losses[i] << " on the CPU";
  }
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::test::RunGpuTests(argc, argv); }
