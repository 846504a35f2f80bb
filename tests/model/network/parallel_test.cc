// P ranks = 1 rank: per-token losses, selection hashes bit for bit, loss and every parameter's gradient, for both
// layouts, both exchanges of selected rows, uneven documents, chunks shorter than the window, and all attention kinds.
//
// Every rank also runs the whole sequence alone and compares.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "model/training/optimizer.h"
#include "parallel/comm/local_comm.h"
#include "tests/support/model_case.h"

namespace longspan {
namespace {

struct Variant {
  std::string name;
  LayoutKind layout = LayoutKind::kHeadTail;
  SelectedExchange exchange = SelectedExchange::kGather;
  bool documents = true;
  int64_t window = 13;
  KvBranches branches = KvBranches::kSeparate;
  Phi phi = Phi::kMlp;
  CompressRope compress_rope = CompressRope::kAfter;
  std::vector<AttentionKind> attention = {AttentionKind::kNsa};
  bool reorder = false;
};

std::vector<Variant> Variants() {
  using enum AttentionKind;
  const auto head_tail = LayoutKind::kHeadTail, contiguous = LayoutKind::kContiguous;
  const auto gather = SelectedExchange::kGather, fetch = SelectedExchange::kFetch;
  const auto separate = KvBranches::kSeparate, shared = KvBranches::kShared;
  const auto after = CompressRope::kAfter, before = CompressRope::kBefore;
  std::vector<Variant> variants = {
      {"head_tail_gather", head_tail, gather},
      {"head_tail_fetch", head_tail, fetch},
      {"contiguous_gather", contiguous, gather},
      {"contiguous_fetch", contiguous, fetch},
      {"one_document", head_tail, fetch, false},
      {"window_past_chunks", head_tail, gather, false, 70},
      {"window_past_chunks_contiguous", contiguous, fetch, true, 100},
      {"shared_linear_before", head_tail, fetch, true, 13, shared, Phi::kLinear, before},
      {"shared_mean_after", contiguous, gather, true, 9, shared, Phi::kMean, after},
      {"shared_mlp_after", head_tail, fetch, true, 70, shared, Phi::kMlp, after},
      {"shared_linear_gather", head_tail, gather, false, 3, shared, Phi::kLinear, before},
      // One token would do, but its gradient is zero in exact arithmetic and rounding alone would be compared.
      {"window_two", head_tail, gather, true, 2},
      {"hybrid", head_tail, fetch, true, 13, separate, Phi::kMlp, after, {kFull, kWindow, kNsa}},
  };
  const size_t plain = variants.size();
  for (size_t i = 0; i < plain; ++i) {
    Variant variant = variants[i];
    variant.name += "_reordered_streams";
    variant.reorder = true;
    variants.push_back(variant);
  }
  return variants;
}

class ModelParallel : public testing::TestWithParam<Variant> {};

TEST_P(ModelParallel, EqualsOneRank) {
  const Variant& variant = GetParam();
  const auto world = MakeMpiWorld();
  SessionConfig config = SmallConfig();
  config.model.layers = static_cast<int64_t>(std::max<size_t>(2, variant.attention.size()));
  config.model.attention = variant.attention;
  config.model.nsa.window = variant.window;
  config.model.nsa.kv_branches = variant.branches;
  config.model.nsa.phi = variant.phi;
  config.model.nsa.compress_rope = variant.compress_rope;
  config.parallel.layout = variant.layout;
  config.parallel.selected_exchange = variant.exchange;
  config.sequence_length = 384;  // 2 * 8 ranks * 3 blocks; 3 ranks: chunks of 64

  const auto self = MakeLocalCommunicator(TestCpu());
  ModelCase alone(config, *self, DType::kF32, variant.documents);
  alone.ForwardBackward();
  if (variant.reorder) SetCpuStreamMode(CpuStreamMode::kReorder, 5 + world->rank());  // every rank in another order
  ModelCase parts(config, *world, DType::kF32, variant.documents);
  parts.ForwardBackward();
  if (variant.reorder) SetCpuStreamMode(CpuStreamMode::kImmediate);

  // Per-token losses, bit for bit.
  const float* expected = alone.session.model().token_loss().As<float>();
  const float* found = parts.session.model().token_loss().As<float>();
  for (const Segment& segment : parts.session.layout().segments(world->rank())) {
    for (int64_t i = 0; i < segment.length; ++i) {
      ASSERT_EQ(expected[segment.begin + i], found[segment.row + i]) << "token " << segment.begin + i;
    }
  }

  const auto device = MakeCpuDevice();
  const auto stream = device->MakeStream("test");
  Tensor hashes = parts.session.model().selection_hashes();
  world->AllReduce(*stream, hashes, ReduceOp::kSum);
  stream->Synchronize();
  for (int64_t layer = 0; layer < config.model.layers; ++layer) {
    EXPECT_EQ(hashes.As<int64_t>()[layer], alone.session.model().selection_hashes().As<int64_t>()[layer]);
  }

  double loss = parts.Loss();
  world->AllReduce(*stream, HostView(&loss, {1}), ReduceOp::kSum);
  stream->Synchronize();
  EXPECT_NEAR(loss, alone.Loss(), 1e-6);

  // Gradients: the ranks' sum.
  world->AllReduce(*stream, parts.session.model().params().gradients(), ReduceOp::kSum);
  stream->Synchronize();
  const auto& references = alone.session.model().params().params();
  const auto& params = parts.session.model().params().params();
  double all = 0;
  int64_t count = 0;
  for (const auto& reference : references) {
    for (int64_t i = 0; i < reference->size(); ++i) all += std::pow(reference->gradient.As<float>()[i], 2);
    count += reference->size();
  }
  const double floor = 1e-3 * std::sqrt(all / static_cast<double>(count));
  for (size_t p = 0; p < params.size(); ++p) {
    double error = 0, scale = 0;
    const int64_t size = params[p]->size();
    for (int64_t i = 0; i < size; ++i) {
      const double a = references[p]->gradient.As<float>()[i];
      error += std::pow(params[p]->gradient.As<float>()[i] - a, 2);
      scale += a * a;
    }
    error = std::sqrt(error / static_cast<double>(size));
    scale = std::max(std::sqrt(scale / static_cast<double>(size)), floor);
    EXPECT_TRUE(error <= 1e-5 * scale) << params[p]->name << ": RMS error " << error << ", scale " << scale;
  }
}

// Weights after two steps in which every part of the gradients is reduced as soon as it is there.
std::vector<float> TrainedWeights(const SessionConfig& config, Communicator& world) {
  ModelCase model(config, world, DType::kF32);
  Session& session = model.session;
  ParamTable& params = session.model().params();
  Optimizer optimizer({.device = session.device(),
                       .ops = session.ops(),
                       .compute = session.compute(),
                       .comm = session.comm(),
                       .world = world,
                       .params = params,
                       .config = OptimizerConfig()});
  Arena arena;
  optimizer.Reserve(arena, DType::kF32, DType::kF32);
  arena.Commit(session.device());
  optimizer.Start(/*seed=*/1);
  for (int step = 1; step <= 2; ++step) {
    session.model().ForwardBackward(session.inputs(),
                                    [&](int64_t begin, int64_t end) { optimizer.Reduce(begin, end); });
    optimizer.FinishReduce();
    optimizer.Step(step, 0.01);
  }
  return session.ToHost<float>(params.weights());
}

// In whatever order the events allow, the same bits.
TEST(ModelReduction, BehindTheBackwardNeedsNoOrderButItsEvents) {
  const auto world = MakeMpiWorld();
  SessionConfig config = SmallConfig();
  config.model.layers = 3;
  config.sequence_length = 384;
  for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
    config.keep.recompute = recompute;
    config.keep.offload = recompute != Recompute::kNone;
    const std::vector<float> expected = TrainedWeights(config, *world);
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      SetCpuStreamMode(CpuStreamMode::kReorder, 10 * seed + world->rank());
      const std::vector<float> found = TrainedWeights(config, *world);
      SetCpuStreamMode(CpuStreamMode::kImmediate);
      ASSERT_EQ(found.size(), expected.size());
      for (size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i], expected[i]) << i << ", seed " << seed;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, ModelParallel, testing::ValuesIn(Variants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace longspan
