// The rounding CPU reference: rounds as a cast to BF16 does, rounds what a GPU stores in BF16 and nothing else, moves
// losses and gradients by about what BF16 does, gives the same bits twice and on streams that run late.
#include "tests/support/rounding_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "launch/commands/verify.h"
#include "parallel/comm/local_comm.h"
#include "tests/support/model_case.h"

namespace longspan {
namespace {

SessionConfig Config() {
  SessionConfig config = SmallConfig();
  config.model.layers = 2;
  config.model.attention = {AttentionKind::kNsa, AttentionKind::kFull};
  config.model.qk_norm = true;
  return config;
}

std::unique_ptr<ModelCase> RoundingModel(const SessionConfig& config, Communicator& self) {
  auto model = std::make_unique<ModelCase>(config, self, DType::kF32, true, TestCpu(), MakeRoundingOps());
  RoundToBf16(model->session.compute(), model->session.model().params().weights());
  return model;
}

std::vector<float> Values(const Tensor& x) { return {x.As<float>(), x.As<float>() + x.size()}; }

bool IsBf16(float x) { return (std::bit_cast<uint32_t>(x) & 0xFFFF) == 0; }

// How many elements BF16 does not hold.
int64_t Wide(const Tensor& x) {
  const std::vector<float> values = Values(x);
  return std::count_if(values.begin(), values.end(), [](float value) { return !IsBf16(value); });
}

double RmsRatio(const std::vector<float>& found, const std::vector<float>& expected) {
  double error = 0, squares = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    error += std::pow(found[i] - expected[i], 2);
    squares += std::pow(expected[i], 2);
  }
  return std::sqrt(error / squares);
}

struct Operand {
  explicit Operand(const Shape& shape, float first) : values(shape.count()), view(HostView(values.data(), shape)) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = first + std::sin(first + 1.7F * static_cast<float>(i));
  }
  std::vector<float> values;
  Tensor view;
};

TEST(RoundingOps, RoundsAsACastDoes) {
  const float inf = std::numeric_limits<float>::infinity();
  const float tie = 1.00390625F;  // 1 + 2^-8, halfway
  std::vector<float> values = {0, -0.0F, 1, tie, 1.01171875F, std::nextafter(tie, 2.0F), -tie, 3.4e38F, 1e-40F, inf};
  std::vector<float> expected(values.size());
  std::vector<uint16_t> bits(values.size());
  const auto stream = TestCpu().MakeStream("test");
  const Shape shape{static_cast<int64_t>(values.size())};
  const Tensor narrow(bits.data(), DType::kBf16, DeviceKind::kCpu, shape);
  MakeCpuRows()->Copy(*stream, HostView(values.data(), shape), narrow);
  MakeCpuRows()->Copy(*stream, narrow, HostView(expected.data(), shape));
  RoundToBf16(*stream, HostView(values.data(), shape));
  stream->Synchronize();
  EXPECT_EQ(values, expected);
}

TEST(RoundingOps, WeightGradientsOfProductsAreKept) {
  const Ops ops = MakeRoundingOps();
  const auto stream = TestCpu().MakeStream("test");
  const Operand x({6, 4}, 0.1F), d_y({6, 5}, 0.2F), weight({4, 5}, 0.3F), d_weight({4, 5}, 0.4F), d_x({6, 4}, 0.5F);
  ops.dense->MatMul(*stream, {x.view, d_y.view, d_weight.view, true, false, true});
  EXPECT_GT(Wide(d_weight.view), 0);
  ops.dense->MatMul(*stream, {d_y.view, weight.view, d_x.view, false, true, true});
  EXPECT_EQ(Wide(d_x.view), 0);
  for (const Operand* operand : {&x, &d_y, &weight}) EXPECT_EQ(Wide(operand->view), 0);
}

TEST(RoundingOps, GradientsOfActivationsAreRounded) {
  const Ops ops = MakeRoundingOps();
  const auto stream = TestCpu().MakeStream("test");
  const Shape rows{6, 4}, heads{6, 2, 4}, gates{6, 2, 3};
  const Operand x(rows, 0.1F), d_y(rows, 0.2F), up(rows, 0.3F), weight({4}, 0.4F), norm_d_x(rows, 0.5F),
      d_weight({4}, 0.6F), d_gate(rows, 0.7F), d_up(rows, 0.8F), d_logits(rows, 0.9F), d_bias({4}, 1.0F);
  ops.dense->RmsNormBackward(*stream, {x.view, weight.view, 1e-5, {}}, {d_y.view, norm_d_x.view, d_weight.view, true});
  ops.dense->SwiGluBackward(*stream, {x.view, up.view, {}}, {d_y.view, d_gate.view, d_up.view});
  ops.dense->GateBackward(*stream, {x.view, weight.view, up.view}, {d_y.view, d_logits.view, d_bias.view});
  for (const Operand* operand : {&d_y, &norm_d_x, &d_gate, &d_up, &d_logits}) EXPECT_EQ(Wide(operand->view), 0);
  for (const Operand* operand : {&d_weight, &d_bias}) EXPECT_GT(Wide(operand->view), 0);

  const Operand gate(gates, 0.1F), o_cmp(heads, 0.2F), o_slc(heads, 0.3F), o_win(heads, 0.4F), o(heads, 0.5F),
      d_o(heads, 0.6F), d_gates(gates, 0.7F);
  ops.attention->CombineBackward(*stream, {gate.view, o_cmp.view, o_slc.view, o_win.view, o.view},
                                 {d_o.view, d_gates.view});
  EXPECT_GT(Wide(d_gates.view), 0);

  const Operand logits_x(rows, 0.1F), head({7, 4}, 0.2F), loss({6}, 0.3F), d_x(rows, 0.4F), d_head({7, 4}, 0.5F);
  std::vector<int32_t> targets = {0, 3, 6, -1, 2, 1};
  const double scale = 0.3;
  ops.train->LinearCrossEntropy(*stream, {.x = logits_x.view,
                                          .weight = head.view,
                                          .targets = HostView(targets.data(), {6}),
                                          .loss = loss.view,
                                          .scale = HostView(&scale, {1}),
                                          .d_x = d_x.view,
                                          .d_weight = d_head.view});
  EXPECT_EQ(Wide(d_x.view), 0);
  for (const Operand* operand : {&loss, &d_head}) EXPECT_GT(Wide(operand->view), 0);
}

// Backward a rotation is of kept gradients: the summaries' stay F32 on a GPU, the others are rounded as operands.
TEST(RoundingOps, RotatesActivationsRoundedAndGradientsKept) {
  const Ops ops = MakeRoundingOps();
  const auto stream = TestCpu().MakeStream("test");
  const Operand x({6, 2, 4}, 0.1F), y({6, 2, 4}, 0.2F);
  std::vector<int32_t> positions = {0, 1, 2, 3, 4, 5};
  std::vector<double> frequency = {1, 0.1};
  RopeArgs args{x.view, y.view, HostView(positions.data(), {6}), HostView(frequency.data(), {2}), 1, false};
  ops.dense->Rope(*stream, args);
  EXPECT_EQ(Wide(y.view), 0);
  args.inverse = true;
  ops.dense->Rope(*stream, args);
  EXPECT_GT(Wide(y.view), 0);
}

TEST(RoundingModel, ActivationsAreBf16AndStatisticsAreNot) {
  const auto self = MakeLocalCommunicator(TestCpu());
  const auto rounding = RoundingModel(Config(), *self);
  rounding->ForwardBackward();
  Transformer& model = rounding->session.model();
  const NsaCore& nsa = *model.attention(0).nsa();
  for (const Tensor& x : {nsa.q(), nsa.gates(), nsa.out(), nsa.branch_out(0), nsa.branch_out(1), nsa.branch_out(2)}) {
    EXPECT_EQ(Wide(x), 0);
  }
  for (const KeyRows& rows : nsa.rows()) {
    EXPECT_EQ(Wide(rows.projected_k()), 0);
    EXPECT_EQ(Wide(rows.v), 0);
  }
  EXPECT_GT(Wide(nsa.branch_lse(NsaCore::kWin)), 0);
  EXPECT_GT(Wide(model.token_loss()), 0);
  EXPECT_EQ(Wide(model.params().weights()), 0);
  for (const auto& param : model.params().params()) EXPECT_GT(Wide(param->gradient), 0) << param->name;
}

TEST(RoundingModel, MovesLossesAndGradientsByWhatBf16Does) {
  const auto self = MakeLocalCommunicator(TestCpu());
  const SessionConfig config = Config();
  const auto rounding = RoundingModel(config, *self);
  rounding->ForwardBackward();
  ModelCase exact(config, *self, DType::kF32);
  RoundToBf16(exact.session.compute(), exact.session.model().params().weights());
  exact.Freeze(rounding->Selections());
  exact.ForwardBackward();

  Transformer &model = exact.session.model(), &rounded = rounding->session.model();
  const double losses = RmsRatio(Values(rounded.token_loss()), Values(model.token_loss()));
  EXPECT_TRUE(losses >= 1e-4 && losses <= 5e-2) << losses;
  const auto gradients = Values(model.params().gradients());
  for (const GradientRow& row : CompareGradients(model.params(), gradients, Values(rounded.params().gradients()))) {
    EXPECT_TRUE(row.ratio >= 1e-4 && row.ratio <= 5e-2) << row.name << ": RMS error ratio " << row.ratio;
  }
}

TEST(RoundingModel, GivesTheSameBitsTwiceAndOnLateStreams) {
  const auto self = MakeLocalCommunicator(TestCpu());
  const auto first = RoundingModel(Config(), *self);
  first->ForwardBackward();
  const auto gradients = Values(first->session.model().params().gradients());
  const auto losses = Values(first->session.model().token_loss());
  first->ForwardBackward();
  EXPECT_TRUE(Values(first->session.model().params().gradients()) == gradients);
  SetCpuStreamMode(CpuStreamMode::kReorder, 3);
  const auto late = RoundingModel(Config(), *self);
  late->ForwardBackward();
  SetCpuStreamMode(CpuStreamMode::kImmediate);
  EXPECT_TRUE(Values(late->session.model().params().gradients()) == gradients);
  EXPECT_TRUE(Values(late->session.model().token_loss()) == losses);
}

}  // namespace
}  // namespace longspan
