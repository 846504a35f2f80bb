// AdamW against the paper's formulas in fp64, sums and the clipping scale.
#include <cmath>
#include <limits>

#include "kernels/train/ops.h"
#include "tests/support/host_values.h"

namespace longspan::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

const std::unique_ptr<TrainOps> kOps = MakeCpuTrain();

template <typename T>
class OptimizerTest : public testing::Test {};
TYPED_TEST_SUITE(OptimizerTest, FloatTypes);

TYPED_TEST(OptimizerTest, AdamWByThePaper) {
  using T = TypeParam;
  const int64_t size = 10007;
  auto weight = Values<T>::Normal({size}, 1), m = Values<T>::Filled({size}, 0), v = Values<T>::Filled({size}, 0);
  const auto scale = Values<double>::Filled({1}, 0.5);
  std::vector<double> w_expected = weight.Doubles(), m_expected(size, 0), v_expected(size, 0);
  const double rate = 0.01, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.1;
  for (int64_t step = 1; step <= 5; ++step) {
    const auto gradient = Values<T>::Normal({size}, 100 + step);
    kOps->AdamW(
        HostStream(),
        {weight.view(), gradient.view(), m.view(), v.view(), {}, scale.view(), rate, beta1, beta2, eps, decay, step});
    for (int64_t i = 0; i < size; ++i) {
      const double g = 0.5 * gradient[i];
      m_expected[i] = beta1 * m_expected[i] + (1 - beta1) * g;
      v_expected[i] = beta2 * v_expected[i] + (1 - beta2) * g * g;
      const double m_hat = m_expected[i] / (1 - std::pow(beta1, step));
      const double v_hat = v_expected[i] / (1 - std::pow(beta2, step));
      w_expected[i] -= rate * (m_hat / (std::sqrt(v_hat) + eps) + decay * w_expected[i]);
    }
    ExpectClose("weight", weight, w_expected);
    ExpectClose("m", m, m_expected);
    ExpectClose("v", v, v_expected);
  }
}

// The first step moves by the learning rate against the gradient's sign, whatever the gradient's size.
TEST(Optimizer, FirstStepIsTheSign) {
  Values<double> weight({3}, {0, 0, 0}), m({3}, {0, 0, 0}), v({3}, {0, 0, 0});
  const Values<double> gradient({3}, {1e-3, -5, 0}), scale({1}, {1});
  kOps->AdamW(HostStream(),
              {weight.view(), gradient.view(), m.view(), v.view(), {}, scale.view(), 0.1, 0.9, 0.999, 1e-12, 0});
  EXPECT_NEAR(weight[0], -0.1, 1e-9);
  EXPECT_NEAR(weight[1], 0.1, 1e-9);
  EXPECT_EQ(weight[2], 0);
}

TYPED_TEST(OptimizerTest, ThreadsDoNotMatter) {
  using T = TypeParam;
  const auto x = Values<T>::Normal({100, 1003}, 1);
  ExpectThreadsDoNotMatter<double>("sums", [&] {
    auto sums = Values<double>::Filled({2}, 0);
    kOps->AddSum(HostStream(), x.view(), sums.view().Rows(0, 1));
    kOps->AddSumOfSquares(HostStream(), x.view(), sums.view().Rows(1, 1));
    return sums;
  });
  ExpectThreadsDoNotMatter<T>("adamw", [&] {
    const auto gradient = Values<T>::Normal({50001}, 3);
    const auto scale = Values<double>::Filled({1}, 1);
    auto weight = Values<T>::Normal({50001}, 2), m = weight, v = Values<T>::Filled({50001}, 1);
    kOps->AdamW(HostStream(),
                {weight.view(), gradient.view(), m.view(), v.view(), {}, scale.view(), 0.1, 0.9, 0.95, 1e-8, 0.1, 3});
    return weight;
  });
}

TYPED_TEST(OptimizerTest, SumsAccumulate) {
  using T = TypeParam;
  for (const int64_t size : {0, 1, 17, 8192, 30011}) {
    const auto x = Values<T>::Normal({size}, size + 1);
    Values<double> sum({1}, {3}), squares({1}, {4});
    kOps->AddSum(HostStream(), x.view(), sum.view());
    kOps->AddSumOfSquares(HostStream(), x.view(), squares.view());
    long double sum_expected = 3, squares_expected = 4;
    for (int64_t i = 0; i < size; ++i) {
      sum_expected += x[i];
      squares_expected += static_cast<long double>(x[i]) * x[i];
    }
    EXPECT_NEAR(sum[0], static_cast<double>(sum_expected), 1e-12 * (size + 1));
    EXPECT_NEAR(squares[0], static_cast<double>(squares_expected), 1e-12 * (size + 1));
  }
}

TEST(Optimizer, ClipScale) {
  const auto scale_of = [](double sum, double max_norm, double loss = 0, double norm_limit = kInfinity,
                           double loss_limit = kInfinity) {
    const Values<double> sum_of_squares({1}, {sum}), losses({1}, {loss});
    Values<double> scale({1});
    kOps->ClipScale(HostStream(), {.sum_of_squares = sum_of_squares.view(),
                                   .loss = losses.view(),
                                   .max_norm = max_norm,
                                   .norm_limit = norm_limit,
                                   .loss_limit = loss_limit,
                                   .scale = scale.view()});
    return scale[0];
  };
  EXPECT_EQ(scale_of(16, 1), 0.25);
  EXPECT_EQ(scale_of(16, 4), 1);
  EXPECT_EQ(scale_of(16, 5), 1);
  EXPECT_EQ(scale_of(16, 0), 1);
  EXPECT_EQ(scale_of(0, 1), 1);
  EXPECT_EQ(scale_of(16, 1, 5, 4, 5), 0.25);
  for (const double max_norm : {0.0, 1.0}) {
    EXPECT_TRUE(std::isnan(scale_of(kNan, max_norm)));
    EXPECT_TRUE(std::isnan(scale_of(kInfinity, max_norm)));
    EXPECT_TRUE(std::isnan(scale_of(16, max_norm, kNan)));
    EXPECT_TRUE(std::isnan(scale_of(16, max_norm, kInfinity)));
    EXPECT_TRUE(std::isnan(scale_of(16, max_norm, 5, 3.9, 6)));
    EXPECT_TRUE(std::isnan(scale_of(16, max_norm, 5, 4, 4.9)));
  }
}

TYPED_TEST(OptimizerTest, NoScaleNoUpdate) {
  using T = TypeParam;
  const int64_t size = 10007;
  auto weight = Values<T>::Normal({size}, 1), m = Values<T>::Normal({size}, 2), v = Values<T>::Filled({size}, 3);
  const std::vector<double> before[] = {weight.Doubles(), m.Doubles(), v.Doubles()};
  const auto gradient = Values<T>::Filled({size}, std::numeric_limits<T>::quiet_NaN());
  const auto scale = Values<double>::Filled({1}, std::numeric_limits<double>::quiet_NaN());
  kOps->AdamW(HostStream(),
              {weight.view(), gradient.view(), m.view(), v.view(), {}, scale.view(), 0.1, 0.9, 0.95, 1e-8, 0.1, 1});
  EXPECT_EQ(weight.Doubles(), before[0]);
  EXPECT_EQ(m.Doubles(), before[1]);
  EXPECT_EQ(v.Doubles(), before[2]);
}

TEST(Optimizer, HashOfEveryBitAndItsPlace) {
  const auto hash_of = [](const Values<float>& x) {
    int64_t hash = -1;
    kOps->Hash(HostStream(), x.view(), HostView(&hash, {1}));
    return hash;
  };
  const auto first = Values<float>::Normal({50002}, 1);
  const int64_t hash = hash_of(first);
  EXPECT_EQ(hash, hash_of(first));
  for (const int64_t at : {0, 1, 31337, 50001}) {
    auto other = first;
    other[at] = -other[at];
    EXPECT_NE(hash_of(other), hash) << at;
  }
  auto swapped = first;
  std::swap(swapped[0], swapped[2]);
  std::swap(swapped[1], swapped[3]);
  EXPECT_NE(hash_of(swapped), hash);
  EXPECT_EQ(hash_of(Values<float>({0})), 0);
  ExpectThreadsDoNotMatter<double>("hash", [&] { return Values<double>({1}, {static_cast<double>(hash_of(first))}); });
}

TEST(Optimizer, RefusesByName) {
  Values<float> weight({4});
  const auto wide = Values<double>::Filled({4}, 0), scale = Values<double>::Filled({1}, 1);
  ExpectError(ExitCode::kRankFailed, {"train.adamw: gradient", "F32 [4]", "F64 [4]"}, [&] {
    kOps->AdamW(HostStream(), {weight.view(), wide.view(), weight.view(), weight.view(), {}, scale.view()});
  });
  ExpectError(ExitCode::kRankFailed, {"train.adamw: master"}, [&] {
    kOps->AdamW(HostStream(),
                {weight.view(), weight.view(), weight.view(), weight.view(), weight.view(), scale.view()});
  });
  ExpectError(ExitCode::kRankFailed, {"train.adamw: step", "found 0"}, [&] {
    kOps->AdamW(
        HostStream(),
        {weight.view(), weight.view(), weight.view(), weight.view(), {}, scale.view(), 0.1, 0.9, 0.9, 1e-8, 0, 0});
  });
  ExpectError(ExitCode::kRankFailed, {"train.sum: sum", "F64 [1]", "F32 [4]"},
              [&] { kOps->AddSum(HostStream(), weight.view(), weight.view()); });
}

}  // namespace
}  // namespace longspan::test
