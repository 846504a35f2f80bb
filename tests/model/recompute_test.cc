// Activations that the backward makes again give the gradients of activations that were kept, bit for bit; and take
// less memory.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/model_case.h"

namespace longspan {
namespace {

struct Result {
  std::vector<float> losses, gradients;
  int64_t bytes = 0;  // of activations
};

Result RunWith(RunConfig config, Recompute recompute, Communicator& cp) {
  config.train.recompute = recompute;
  ModelCase model(config, cp, DType::kF32);
  model.ForwardBackward();
  Result result{model.session.ToHost<float>(model.session.model().token_loss()),
                model.session.ToHost<float>(model.session.model().params().gradients())};
  for (const MemoryRow& row : model.session.arena().Rows()) {
    if (row.use == MemoryUse::kActivations) result.bytes = row.bytes;
  }
  return result;
}

void ExpectSame(const RunConfig& config) {
  const auto world = MakeMpiWorld();
  for (const bool reorder : {false, true}) {
    if (reorder) SetCpuStreamMode(CpuStreamMode::kReorder, 3);
    const Result kept = RunWith(config, Recompute::kNone, *world);
    const Result made = RunWith(config, Recompute::kFull, *world);
    SetCpuStreamMode(CpuStreamMode::kImmediate);
    EXPECT_TRUE(kept.losses == made.losses);
    ASSERT_EQ(kept.gradients.size(), made.gradients.size());
    for (size_t i = 0; i < kept.gradients.size(); ++i) ASSERT_EQ(kept.gradients[i], made.gradients[i]) << "at " << i;
    EXPECT_LT(made.bytes, kept.bytes * 2 / config.model.layers);
  }
}

RunConfig DeepConfig() {
  RunConfig config = SmallConfig();
  config.model.layers = 6;
  return config;
}

TEST(Recompute, Gather) { ExpectSame(DeepConfig()); }

TEST(Recompute, FetchHybridWithQkNorm) {
  RunConfig config = DeepConfig();
  config.parallel.selected_exchange = SelectedExchange::kFetch;
  config.model.attention = {AttentionKind::kNsa, AttentionKind::kFull, AttentionKind::kWindow};
  config.model.qk_norm = true;
  ExpectSame(config);
}

// The feed-forward layer in two chunks is the same layer as in one.
TEST(Recompute, SeveralChunks) {
  const auto world = MakeMpiWorld();
  const auto self = MakeMpiSelf();
  RunConfig config = SmallConfig();
  config.data.sequence_length = FeedForward::kChunk + 64;
  const Result whole = RunWith(config, Recompute::kFull, *self);  // two chunks
  Result parts = RunWith(config, Recompute::kFull, *world);       // two ranks: one chunk each
  world->AllReduce(*MakeCpuDevice()->MakeStream("test"),
                   HostView(parts.gradients.data(), {static_cast<int64_t>(parts.gradients.size())}), ReduceOp::kSum);
  double error = 0, squares = 0;
  for (size_t i = 0; i < whole.gradients.size(); ++i) {
    error += std::pow(parts.gradients[i] - whole.gradients[i], 2);
    squares += std::pow(whole.gradients[i], 2);
  }
  EXPECT_LE(error, 1e-10 * squares);
  EXPECT_GT(squares, 0);
}

}  // namespace
}  // namespace longspan
