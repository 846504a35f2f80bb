// The model on a GPU: in F32 and BF16 against the CPU, on several ranks against one, twice the same bits, recomputed
// and offloaded activations against kept ones. Selections are given, so that numbers are compared and not near ties.
#include <gtest/gtest.h>

#include <cmath>

#include "launch/commands/verify.h"
#include "launch/job/binding.h"
#include "parallel/comm/local_comm.h"
#include "tests/support/model_case.h"
#include "tests/support/rounding_ops.h"

namespace longspan {
namespace {

// One rank's GPU, all ranks, and this rank alone. Made once, gone before MPI is.
struct Ranks {
  Binding binding = BindRank(DeviceKind::kGpu, true);
  Device& device = *binding.device;
  std::unique_ptr<Communicator> world = MakeDeviceCommunicator(MakeMpiWorld(), device, Transport::kAuto);
  std::unique_ptr<Communicator> self = MakeLocalCommunicator(device);
};
std::unique_ptr<Ranks> ranks;

class Cleanup : public testing::Environment {
 public:
  void TearDown() override { ranks.reset(); }
};
[[maybe_unused]] const auto* const kCleanup = testing::AddGlobalTestEnvironment(new Cleanup);

struct Variant {
  std::string name;
  std::vector<AttentionKind> attention = {AttentionKind::kNsa};
  SelectedExchange exchange = SelectedExchange::kGather;
  KvBranches branches = KvBranches::kSeparate;
  Phi phi = Phi::kMlp;
  CompressRope compress_rope = CompressRope::kAfter;
  bool qk_norm = false;
  bool tied_head = true;
};

std::vector<Variant> Variants() {
  using enum AttentionKind;
  return {{.name = "plain"},
          {.name = "fetch", .exchange = SelectedExchange::kFetch},
          {.name = "shared_linear_before_norm_untied",
           .branches = KvBranches::kShared,
           .phi = Phi::kLinear,
           .compress_rope = CompressRope::kBefore,
           .qk_norm = true,
           .tied_head = false},
          {.name = "shared_mean_after", .branches = KvBranches::kShared, .phi = Phi::kMean},
          {.name = "hybrid", .attention = {kFull, kWindow, kNsa}, .exchange = SelectedExchange::kFetch}};
}

struct Outcome {
  std::vector<float> losses, gradients;
};

class ModelGpu : public testing::TestWithParam<std::tuple<Variant, DType>> {
 protected:
  void SetUp() override {
    if (GpuCount() == 0) GTEST_SKIP() << "no GPU";
    if (!ranks) ranks = std::make_unique<Ranks>();
    const auto& [variant, dtype] = GetParam();
    dtype_ = dtype;
    config_ = SmallConfig();
    config_.sequence_length = 384;
    if (dtype == DType::kBf16) {  // widths that tensor cores take
      config_.model.hidden = 128;
      config_.model.key_width = config_.model.value_width = 64;
      config_.model.ffn = 192;
      config_.model.vocab = 96;
      config_.model.nsa.block = 32;
      config_.model.nsa.stride = 16;
      config_.model.nsa.select_block = 64;
      config_.model.nsa.window = 90;
      config_.sequence_length = 1024;
    }
    config_.model.layers = static_cast<int64_t>(std::max<size_t>(2, variant.attention.size()));
    config_.model.attention = variant.attention;
    config_.model.nsa.kv_branches = variant.branches;
    config_.model.nsa.phi = variant.phi;
    // Without rotation the gradient of phi_k.position is zero in exact arithmetic: BF16 would compare rounding alone.
    const bool rotated = dtype == DType::kBf16 || variant.compress_rope == CompressRope::kAfter;
    config_.model.nsa.compress_rope = rotated ? CompressRope::kAfter : CompressRope::kBefore;
    config_.model.qk_norm = variant.qk_norm;
    config_.model.tied_head = variant.tied_head;
    config_.parallel.selected_exchange = variant.exchange;
  }

  Outcome Run(ModelCase& model) {
    model.ForwardBackward();
    return {model.session.ToHost<float>(model.session.model().token_loss()),
            model.session.ToHost<float>(model.session.model().params().gradients())};
  }

  void ExpectClose(ModelCase& model, const Outcome& found, const Outcome& expected, double loss, double gradient) {
    double error = 0, squares = 0;
    ASSERT_EQ(found.losses.size(), expected.losses.size());
    for (size_t i = 0; i < found.losses.size(); ++i) {
      error += std::pow(found.losses[i] - expected.losses[i], 2);
      squares += std::pow(expected.losses[i], 2);
    }
    EXPECT_TRUE(std::sqrt(error / squares) <= loss) << "losses: RMS error ratio " << std::sqrt(error / squares);
    const ParamTable& params = model.session.model().params();
    for (const GradientRow& row : CompareGradients(params, expected.gradients, found.gradients)) {
      // Zero in exact arithmetic without rotation: both sides have rounding alone, in their own order.
      const bool zero =
          config_.model.nsa.compress_rope == CompressRope::kBefore && row.name.ends_with("phi_k.position");
      const double allowed = zero ? 10 * gradient : gradient;
      EXPECT_TRUE(row.ratio <= allowed) << row.name << ": RMS error " << row.error << " of " << row.reference
                                        << ", ratio " << row.ratio << ", allowed " << allowed;
    }
  }

  SessionConfig config_;
  DType dtype_ = DType::kF32;
};

// The CPU's weights become what BF16 holds of them.
void RoundWeights(ModelCase& model) { RoundToBf16(model.session.compute(), model.session.model().params().weights()); }

TEST_P(ModelGpu, EqualsCpu) {
  const auto host_self = MakeLocalCommunicator(TestCpu());
  const bool narrow = dtype_ == DType::kBf16;
  ModelCase cpu(config_, *host_self, DType::kF32, true, TestCpu(), narrow ? MakeRoundingOps() : Ops());
  if (narrow) RoundWeights(cpu);
  const Outcome expected = Run(cpu);
  double allowed = 1e-5;
  if (narrow) {
    // Two devices soon round independently: a last bit of F32 before a rounding can be one of BF16 after it. Where
    // rounding alone moves gradients by more than 0.01, they may be sqrt(2) of that apart, and a margin for parameters
    // of few elements.
    ModelCase exact(config_, *host_self, DType::kF32);
    RoundWeights(exact);
    exact.Freeze(cpu.Selections());
    const Outcome unrounded = Run(exact);
    const auto moved = CompareGradients(cpu.session.model().params(), unrounded.gradients, expected.gradients);
    allowed = std::max(0.01, 2 * WorstGradient(moved).ratio);
  }
  ModelCase gpu(config_, *ranks->self, dtype_, true, ranks->device);
  gpu.Freeze(cpu.Selections());
  const Outcome found = Run(gpu);
  ExpectClose(cpu, found, expected, narrow ? 0.01 : 1e-4, allowed);
  const Outcome again = Run(gpu);
  EXPECT_TRUE(again.losses == found.losses) << "a second run has other losses";
  EXPECT_TRUE(again.gradients == found.gradients) << "a second run has other gradients";
}

TEST_P(ModelGpu, RanksEqualOne) {
  ModelCase alone(config_, *ranks->self, dtype_, true, ranks->device);
  const Outcome expected = Run(alone);
  ModelCase parts(config_, *ranks->world, dtype_, true, ranks->device);
  const Layout& layout = parts.session.layout();
  const auto& segments = layout.segments(ranks->world->rank());
  const auto own_rows = [&]<typename T>(const std::vector<T>& whole) {
    const int64_t width = static_cast<int64_t>(whole.size()) / layout.sequence();
    std::vector<T> rows(layout.tokens() * width);
    for (const Segment& segment : segments) {
      std::copy_n(whole.begin() + segment.begin * width, segment.length * width, rows.begin() + segment.row * width);
    }
    return rows;
  };
  std::vector<std::vector<int32_t>> selections = alone.Selections();
  for (auto& selection : selections) selection = own_rows(selection);
  parts.Freeze(selections);

  Outcome found;
  for (int run = 0; run < 2; ++run) {
    const Outcome own = Run(parts);
    if (run > 0) {
      EXPECT_TRUE(own.losses == found.losses) << "a second run has other losses";
    }
    found.losses = own.losses;
    ranks->world->AllReduce(parts.session.comm(), parts.session.model().params().gradients(), ReduceOp::kSum);
    parts.session.comm().Synchronize();
    const std::vector<float> sums = parts.session.ToHost<float>(parts.session.model().params().gradients());
    if (run > 0) {
      EXPECT_TRUE(sums == found.gradients) << "a second run has other gradients";
    }
    found.gradients = sums;
  }
  const double tolerance = dtype_ == DType::kBf16 ? 0.01 : 1e-5;
  ExpectClose(parts, found, {own_rows(expected.losses), expected.gradients}, tolerance, tolerance);
}

TEST_P(ModelGpu, RecomputedAndOffloadedEqualKept) {
  config_.model.layers += 2;  // of more than two blocks some are offloaded
  ModelCase kept(config_, *ranks->world, dtype_, true, ranks->device);
  const Outcome expected = Run(kept);
  for (const Recompute recompute : {Recompute::kSelective, Recompute::kFull}) {
    for (const bool offload : {false, true}) {
      SCOPED_TRACE(fmt::format("recompute {}, offload {}", static_cast<int>(recompute), offload));
      config_.keep.recompute = recompute;
      config_.keep.offload = offload;
      ModelCase made(config_, *ranks->world, dtype_, true, ranks->device);
      const Outcome found = Run(made);
      EXPECT_TRUE(found.losses == expected.losses);
      EXPECT_TRUE(found.gradients == expected.gradients);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, ModelGpu,
                         testing::Combine(testing::ValuesIn(Variants()), testing::Values(DType::kF32, DType::kBf16)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + "_" + DTypeName(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace longspan
