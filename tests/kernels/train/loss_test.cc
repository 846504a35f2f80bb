// Linear cross entropy against plain fp64 softmax, its gradients, and its promise that a token's loss stands alone.
#include <cmath>

#include "kernels/train/ops.h"
#include "tests/support/host_values.h"

namespace longspan::test {
namespace {

const std::unique_ptr<TrainOps> kOps = MakeCpuTrain();

constexpr double kOne = 1;
constexpr int64_t kTokens = 13, kWidth = 9, kVocabulary = 21;

Values<int32_t> Targets(int64_t tokens, int64_t vocabulary) {
  Values<int32_t> targets({tokens});
  for (int64_t t = 0; t < tokens; ++t) targets[t] = t % 4 == 1 ? -1 : static_cast<int32_t>(t * 5 % vocabulary);
  return targets;
}

template <typename T>
class LossTest : public testing::Test {};
TYPED_TEST_SUITE(LossTest, FloatTypes);

TYPED_TEST(LossTest, ValuesAndGradientsByPlainSums) {
  using T = TypeParam;
  const auto x = Values<T>::Normal({kTokens, kWidth}, 1), weight = Values<T>::Normal({kVocabulary, kWidth}, 2);
  const auto targets = Targets(kTokens, kVocabulary);
  const double scale = 0.3;
  std::vector<double> loss_expected(kTokens, 0), d_x_expected(x.size(), 0), d_weight_expected(weight.size(), 1);
  for (int64_t t = 0; t < kTokens; ++t) {
    if (targets[t] < 0) continue;
    std::vector<double> logits(kVocabulary, 0);
    double sum = 0;
    for (int64_t v = 0; v < kVocabulary; ++v) {
      for (int64_t c = 0; c < kWidth; ++c) logits[v] += double{x[t * kWidth + c]} * double{weight[v * kWidth + c]};
      sum += std::exp(logits[v]);
    }
    loss_expected[t] = std::log(sum) - logits[targets[t]];
    for (int64_t v = 0; v < kVocabulary; ++v) {
      const double d_logit = scale * (std::exp(logits[v]) / sum - (v == targets[t]));
      for (int64_t c = 0; c < kWidth; ++c) {
        d_x_expected[t * kWidth + c] += d_logit * weight[v * kWidth + c];
        d_weight_expected[v * kWidth + c] += d_logit * x[t * kWidth + c];
      }
    }
  }
  for (const int64_t chunk : {1, 5, 13, 256}) {
    Values<T> loss({kTokens}), d_x(x.shape());
    auto d_weight = Values<T>::Filled(weight.shape(), 1);
    kOps->LinearCrossEntropy(HostStream(), {x.view(), weight.view(), targets.view(), chunk, loss.view(),
                                            HostView(&scale, {1}), d_x.view(), d_weight.view()});
    ExpectClose("loss", loss, loss_expected);
    ExpectClose("d_x", d_x, d_x_expected);
    ExpectClose("d_weight", d_weight, d_weight_expected);
    for (int64_t t = 1; t < kTokens; t += 4) {
      EXPECT_EQ(loss[t], 0);
      for (int64_t c = 0; c < kWidth; ++c) EXPECT_EQ(d_x[t * kWidth + c], 0);
    }
  }
}

TEST(Loss, GradientByFiniteDifferences) {
  auto x = Values<double>::Normal({kTokens, kWidth}, 1), weight = Values<double>::Normal({kVocabulary, kWidth}, 2);
  const auto targets = Targets(kTokens, kVocabulary);
  const double scale = 1.0 / 7;
  Values<double> loss({kTokens}), d_x(x.shape());
  auto d_weight = Values<double>::Filled(weight.shape(), 0);
  const auto total = [&] {
    kOps->LinearCrossEntropy(HostStream(), {x.view(), weight.view(), targets.view(), 4, loss.view(), {}, {}, {}});
    double sum = 0;
    for (int64_t t = 0; t < kTokens; ++t) sum += loss[t];
    return scale * sum;
  };
  kOps->LinearCrossEntropy(HostStream(), {x.view(), weight.view(), targets.view(), 4, loss.view(),
                                          HostView(&scale, {1}), d_x.view(), d_weight.view()});
  ExpectGradient("d_x", d_x, x, total);
  ExpectGradient("d_weight", d_weight, weight, total);
}

// Whatever the chunk, the other tokens, the threads, and whether gradients are asked for.
TYPED_TEST(LossTest, BitsOfATokenStandAlone) {
  using T = TypeParam;
  const int64_t tokens = 71, width = 33, vocabulary = 259;
  const auto x = Values<T>::Normal({tokens, width}, 1), weight = Values<T>::Normal({vocabulary, width}, 2);
  const auto targets = Targets(tokens, vocabulary);
  Values<T> expected({tokens});
  kOps->LinearCrossEntropy(HostStream(), {x.view(), weight.view(), targets.view(), 256, expected.view(), {}, {}, {}});
  for (const int64_t chunk : {1, 7, 64}) {
    Values<T> loss({tokens}), d_x(x.shape());
    auto d_weight = Values<T>::Filled(weight.shape(), 0);
    kOps->LinearCrossEntropy(HostStream(), {x.view(), weight.view(), targets.view(), chunk, loss.view(),
                                            HostView(&kOne, {1}), d_x.view(), d_weight.view()});
    ExpectSameBits("loss", loss, expected);
  }
  for (const int64_t begin : {0, 3, 50}) {
    Values<T> part({tokens - begin});
    kOps->LinearCrossEntropy(HostStream(), {x.view().Rows(begin, tokens - begin),
                                            weight.view(),
                                            targets.view().Rows(begin, tokens - begin),
                                            16,
                                            part.view(),
                                            {},
                                            {},
                                            {}});
    EXPECT_EQ(std::memcmp(&part[0], &expected[begin], part.view().bytes()), 0) << begin;
  }
  ExpectThreadsDoNotMatter<T>("d_weight", [&] {
    Values<T> loss({tokens}), d_x(x.shape());
    auto d_weight = Values<T>::Filled(weight.shape(), 0);
    kOps->LinearCrossEntropy(HostStream(), {x.view(), weight.view(), targets.view(), 32, loss.view(),
                                            HostView(&kOne, {1}), d_x.view(), d_weight.view()});
    return d_weight;
  });
}

TYPED_TEST(LossTest, LargeLogitsAreFinite) {
  using T = TypeParam;
  const Values<T> x({2, 1}, {T(1), T(-1)});
  const Values<T> weight({3, 1}, {T(1e4), T(-1e4), T(0)});
  const Values<int32_t> targets({2}, {0, 0});
  Values<T> loss({2}), d_x({2, 1});
  auto d_weight = Values<T>::Filled({3, 1}, 0);
  kOps->LinearCrossEntropy(HostStream(), {x.view(), weight.view(), targets.view(), 256, loss.view(),
                                          HostView(&kOne, {1}), d_x.view(), d_weight.view()});
  EXPECT_EQ(loss[0], 0);
  EXPECT_EQ(loss[1], T(2e4));
  EXPECT_EQ(d_x[0], 0);
  EXPECT_EQ(d_x[1], T(-2e4));
  EXPECT_EQ(d_weight[0], 1);
  EXPECT_EQ(d_weight[1], -1);
}

TEST(Loss, NanShows) {
  const Values<float> x({1, 1}, {std::numeric_limits<float>::quiet_NaN()}), weight({2, 1}, {1, 2});
  const Values<int32_t> targets({1}, {0});
  Values<float> loss = Values<float>::Filled({1}, 0);
  kOps->LinearCrossEntropy(HostStream(), {x.view(), weight.view(), targets.view(), 256, loss.view(), {}, {}, {}});
  EXPECT_TRUE(std::isnan(loss[0]));
}

TEST(Loss, RefusesByName) {
  const auto x = Values<float>::Normal({2, 3}, 1), weight = Values<float>::Normal({5, 3}, 2);
  Values<float> loss({2});
  auto d_weight = Values<float>::Filled({5, 3}, 0);
  for (const int32_t bad : {5, -2}) {
    const Values<int32_t> targets({2}, {0, bad});
    ExpectError(ExitCode::kData, {"target " + std::to_string(bad), "position 1", "[0,5)"}, [&] {
      kOps->LinearCrossEntropy(HostStream(), {x.view(), weight.view(), targets.view(), 256, loss.view(), {}, {}, {}});
    });
  }
  const Values<int32_t> targets({2}, {0, 1});
  ExpectError(ExitCode::kRankFailed, {"train.loss", "chunk", "found 0"}, [&] {
    kOps->LinearCrossEntropy(HostStream(), {x.view(), weight.view(), targets.view(), 0, loss.view(), {}, {}, {}});
  });
  ExpectError(ExitCode::kRankFailed, {"train.loss", "d_weight", "d_x"}, [&] {
    kOps->LinearCrossEntropy(HostStream(),
                             {x.view(), weight.view(), targets.view(), 8, loss.view(), {}, {}, d_weight.view()});
  });
}

}  // namespace
}  // namespace longspan::test
