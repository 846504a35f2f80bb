// Every parameter's gradient of a two-layer model against numeric differentiation in fp64, selection frozen.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "parallel/comm/local_comm.h"
#include "tests/support/model_case.h"

namespace longspan {
namespace {

// Checks up to `samples` random elements of every parameter: |analytic - numeric| <= 1e-6 * max(RMS of the parameter's
// numeric gradient, 1e-3 * RMS of all).
void CheckGradients(const SessionConfig& config, int samples = 4) {
  const auto self = MakeLocalCommunicator(TestCpu());
  ModelCase model(config, *self, DType::kF64);
  model.Forward();
  model.Freeze(model.Selections());
  model.ForwardBackward();

  constexpr double kStep = 1e-4;
  std::mt19937_64 random(11);
  struct Row {
    std::string name;
    double error = 0, reference = 0;
    int64_t count = 0;
  };
  std::vector<Row> rows;
  double all = 0;
  int64_t all_count = 0;
  for (const auto& param : model.session.model().params().params()) {
    Row& row = rows.emplace_back(Row{param->name});
    double* weight = param->weight.As<double>();
    const double* gradient = param->gradient.As<double>();
    const int64_t count = std::min<int64_t>(samples, param->size());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = count == param->size() ? i : static_cast<int64_t>(random() % param->size());
      const double saved = weight[at];
      const auto loss_at = [&](double shift) {
        weight[at] = saved + shift;
        model.Forward();
        return model.Loss();
      };
      // Five-point stencil: exact to the fourth order, so the step can be long and rounding small.
      const double numeric =
          (8 * (loss_at(kStep) - loss_at(-kStep)) - (loss_at(2 * kStep) - loss_at(-2 * kStep))) / (12 * kStep);
      weight[at] = saved;
      row.error += std::pow(gradient[at] - numeric, 2);
      row.reference += numeric * numeric;
      row.count += 1;
    }
    all += row.reference;
    all_count += row.count;
  }
  const double floor = 1e-3 * std::sqrt(all / static_cast<double>(all_count));
  ASSERT_GT(floor, 0);
  for (const Row& row : rows) {
    const double error = std::sqrt(row.error / static_cast<double>(row.count));
    const double scale = std::max(std::sqrt(row.reference / static_cast<double>(row.count)), floor);
    EXPECT_LE(error, 1e-6 * scale) << row.name << ": RMS error " << error << ", scale " << scale;
  }
}

TEST(ModelGradient, MlpSeparateAfter) { CheckGradients(SmallConfig()); }

TEST(ModelGradient, LinearSharedBeforeWithQkNormUntied) {
  SessionConfig config = SmallConfig();
  config.model.nsa.phi = Phi::kLinear;
  config.model.nsa.kv_branches = KvBranches::kShared;
  config.model.nsa.compress_rope = CompressRope::kBefore;
  config.model.qk_norm = true;
  config.model.tied_head = false;
  CheckGradients(config);
}

TEST(ModelGradient, MlpSharedAfterWithQkNorm) {
  SessionConfig config = SmallConfig();
  config.model.nsa.kv_branches = KvBranches::kShared;
  config.model.qk_norm = true;
  CheckGradients(config);
}

TEST(ModelGradient, MeanSeparateBeforeYarn) {
  SessionConfig config = SmallConfig();
  config.model.nsa.phi = Phi::kMean;
  config.model.nsa.compress_rope = CompressRope::kBefore;
  config.model.rope.scaling = RopeScaling::kYarn;
  config.model.rope.factor = 4;
  config.model.rope.original_max_position = 64;
  CheckGradients(config);
}

TEST(ModelGradient, FullAndWindowLayers) {
  SessionConfig config = SmallConfig();
  config.model.layers = 3;
  config.model.attention = {AttentionKind::kFull, AttentionKind::kWindow, AttentionKind::kNsa};
  CheckGradients(config);
}

}  // namespace
}  // namespace longspan
