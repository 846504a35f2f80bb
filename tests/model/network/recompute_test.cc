// Activations that the backward makes again give the gradients of activations that were kept, bit for bit; and take
// less memory.
#include <gtest/gtest.h>

#include <cmath>

#include "parallel/comm/local_comm.h"
#include "tests/support/model_case.h"

namespace longspan {
namespace {

struct Result {
  std::vector<float> losses, gradients;
  int64_t bytes = 0;  // of activations and what is kept
};

Result RunWith(SessionConfig config, Recompute recompute, bool offload, Communicator& cp) {
  config.keep.recompute = recompute;
  config.keep.offload = offload;
  ModelCase model(config, cp, DType::kF32);
  model.ForwardBackward();
  model.ForwardBackward();  // what the first left behind must not matter
  Result result{model.session.ToHost<float>(model.session.model().token_loss()),
                model.session.ToHost<float>(model.session.model().params().gradients())};
  for (const MemoryRow& row : model.session.arena().Rows()) {
    if (row.use == MemoryUse::kActivations || row.use == MemoryUse::kKept) result.bytes += row.bytes;
  }
  EXPECT_EQ(model.session.model().offloaded_bytes() > 0, offload);
  return result;
}

// Each policy takes less memory than the one before it.
void ExpectSame(const SessionConfig& config) {
  const auto world = MakeMpiWorld();
  const std::pair<Recompute, bool> policies[] = {{Recompute::kSelective, false},
                                                 {Recompute::kSelective, true},
                                                 {Recompute::kFull, false},
                                                 {Recompute::kFull, true}};
  for (const bool reorder : {false, true}) {
    if (reorder) SetCpuStreamMode(CpuStreamMode::kReorder, 3);
    const Result kept = RunWith(config, Recompute::kNone, false, *world);
    int64_t bytes[2] = {kept.bytes, kept.bytes};  // without and with offloading
    for (const auto& [recompute, offload] : policies) {
      const Result made = RunWith(config, recompute, offload, *world);
      EXPECT_TRUE(kept.losses == made.losses);
      ASSERT_EQ(kept.gradients.size(), made.gradients.size());
      for (size_t i = 0; i < kept.gradients.size(); ++i) {
        ASSERT_EQ(kept.gradients[i], made.gradients[i])
            << "at " << i << ", policy " << static_cast<int>(recompute) << ", offload " << offload;
      }
      EXPECT_LT(made.bytes, bytes[offload ? 1 : 0]);
      if (offload) {
        EXPECT_LT(made.bytes, bytes[0]);
      }
      bytes[offload ? 1 : 0] = made.bytes;
    }
    SetCpuStreamMode(CpuStreamMode::kImmediate);
    EXPECT_LT(bytes[0], kept.bytes * 2 / config.model.layers);
  }
}

SessionConfig DeepConfig() {
  SessionConfig config = SmallConfig();
  config.model.layers = 6;
  return config;
}

TEST(Recompute, Gather) { ExpectSame(DeepConfig()); }

TEST(Recompute, FetchHybridWithQkNorm) {
  SessionConfig config = DeepConfig();
  config.parallel.selected_exchange = SelectedExchange::kFetch;
  config.model.attention = {AttentionKind::kNsa, AttentionKind::kFull, AttentionKind::kWindow};
  config.model.qk_norm = true;
  ExpectSame(config);
}

// Branches that share keys and values, whose halo lies behind the selected rows.
TEST(Recompute, Shared) {
  for (const auto exchange : {SelectedExchange::kGather, SelectedExchange::kFetch}) {
    for (const auto rope : {CompressRope::kAfter, CompressRope::kBefore}) {
      SessionConfig config = DeepConfig();
      config.parallel.selected_exchange = exchange;
      config.model.nsa.kv_branches = KvBranches::kShared;
      config.model.nsa.compress_rope = rope;
      config.model.qk_norm = true;
      ExpectSame(config);
    }
  }
}

// The feed-forward layer in two chunks is the same layer as in one.
TEST(Recompute, SeveralChunks) {
  const auto world = MakeMpiWorld();
  const auto self = MakeLocalCommunicator(TestCpu());
  SessionConfig config = SmallConfig();
  config.sequence_length = FeedForward::kChunk + 64;
  const Result whole = RunWith(config, Recompute::kFull, false, *self);  // two chunks
  Result parts = RunWith(config, Recompute::kFull, false, *world);       // two ranks: one chunk each
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
