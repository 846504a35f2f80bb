// The operations of the training step on a GPU against the CPU in F64.
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/train/ops.h"
#include "tests/support/gpu_sides.h"

namespace longspan::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(TrainGpu, LinearCrossEntropy) {
  for (const DType dtype : kGpuTypes) {
    for (const auto& [tokens, width, vocabulary] :
         {std::array<int64_t, 3>{1, 8, 3}, {300, 64, 1000}, {513, 40, 257}, {65537, 16, 31}}) {
      for (int gradients = 0; gradients < 3; ++gradients) {
        SCOPED_TRACE(fmt::format("T={} D={} X={} gradients {}", tokens, width, vocabulary, gradients));
        ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
          std::vector<int32_t> targets(tokens);
          for (int64_t t = 0; t < tokens; ++t) {
            targets[t] = t % 5 == 3 ? -1 : static_cast<int32_t>(t * 7919 % vocabulary);
          }
          const auto x = side.In(1, {tokens, width}), weight = side.In(2, {vocabulary, width}, 0.3);
          const auto ids = side.PutInts(targets);
          const auto scale = side.PutF64({0.125}, {1});
          const auto loss = side.OutSum({tokens}), d_x = side.Out({tokens, width});
          const auto d_weight = side.InSum(3, {vocabulary, width}, 0.01);
          side.train().LinearCrossEntropy(side.stream(), {.x = x.view(),
                                                          .weight = weight.view(),
                                                          .targets = ids.view(),
                                                          .chunk = 64,
                                                          .loss = loss.view(),
                                                          .scale = scale.view(),
                                                          .d_x = gradients > 0 ? d_x.view() : Tensor(),
                                                          .d_weight = gradients > 1 ? d_weight.view() : Tensor()});
          Named results = {{"loss", side.Read(loss)}, {"d_weight", side.Read(d_weight)}};
          if (gradients > 0) results.push_back({"d_x", side.Read(d_x)});
          return results;
        });
      }
    }
  }
}

// More tokens than one chunk of scratch holds.
TEST(TrainGpu, LinearCrossEntropyInChunks) {
  const int64_t tokens = 1300, width = 16, vocabulary = 120000;
  const Side side = GpuSide(DType::kBf16);
  std::vector<int32_t> targets(tokens);
  for (int64_t t = 0; t < tokens; ++t) targets[t] = static_cast<int32_t>(t * 7919 % vocabulary);
  const auto x = side.In(1, {tokens, width}), weight = side.In(2, {vocabulary, width}, 0.3);
  const auto ids = side.PutInts(targets);
  const auto run = [&](int64_t begin, int64_t count) {
    const auto loss = side.OutSum({count});
    side.train().LinearCrossEntropy(side.stream(), {.x = x.view().Rows(begin, count),
                                                    .weight = weight.view(),
                                                    .targets = ids.view().Rows(begin, count),
                                                    .loss = loss.view(),
                                                    .scale = {},
                                                    .d_x = {},
                                                    .d_weight = {}});
    return side.Read(loss);
  };
  std::vector<double> parts;
  for (int64_t begin = 0; begin < tokens; begin += 100) {
    const std::vector<double> part = run(begin, 100);
    parts.insert(parts.end(), part.begin(), part.end());
  }
  EXPECT_TRUE(RmsClose("loss", run(0, tokens), parts, 1e-6));
}

TEST(TrainGpu, TargetsOutsideTheVocabularyAreErrors) {
  const Side side = GpuSide(DType::kF32);
  const auto x = side.In(1, {3, 8}), weight = side.In(2, {10, 8}), loss = side.OutSum({3});
  for (const int32_t bad : {-2, 10}) {
    const auto ids = side.PutInts({0, bad, -1});
    side.train().LinearCrossEntropy(side.stream(), {.x = x.view(),
                                                    .weight = weight.view(),
                                                    .targets = ids.view(),
                                                    .loss = loss.view(),
                                                    .scale = {},
                                                    .d_x = {},
                                                    .d_weight = {}});
    ExpectGpuError(ExitCode::kData, fmt::format("target {} at position 1", bad), [&] { side.stream().Synchronize(); });
    const std::vector<double> values = side.Read(loss);
    EXPECT_TRUE(std::isfinite(values[0]) && std::isnan(values[1]) && values[2] == 0);
  }
}

TEST(TrainGpu, AdamW) {
  for (const DType dtype : kGpuTypes) {
    ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
      const Shape shape{12345};
      const bool master = side.gpu() && dtype == DType::kBf16;
      const auto weight = side.In(1, shape), gradient = side.InSum(2, shape), m = side.InSum(3, shape, 0.1);
      std::vector<double> squares = Side::Normal(4, shape, 0.1);
      for (double& x : squares) x = static_cast<float>(x * x);
      const auto v = side.PutSum(squares, shape), wide = side.InSum(1, shape), scale = side.PutF64({0.5}, {1});
      side.rows().Copy(side.stream(), weight.view(), wide.view());
      for (const int64_t step : {3, 4}) {
        side.train().AdamW(side.stream(), {.weight = weight.view(),
                                           .gradient = gradient.view(),
                                           .m = m.view(),
                                           .v = v.view(),
                                           .master = master ? wide.view() : Tensor(),
                                           .grad_scale = scale.view(),
                                           .learning_rate = 1e-2,
                                           .beta1 = 0.9,
                                           .beta2 = 0.95,
                                           .eps = 1e-8,
                                           .weight_decay = 0.1,
                                           .step = step});
      }
      if (master) {
        EXPECT_TRUE(BitEqual("weight", side.Read(weight), Rounded(side.Read(wide), DType::kBf16)));
      }
      return {{"weight", side.Read(master ? wide : weight)}, {"m", side.Read(m)}, {"v", side.Read(v)}};
    });
  }
  const Side side = GpuSide(DType::kBf16);
  const auto weight = side.In(1, {3}), state = side.InSum(1, {3}), scale = side.PutF64({1}, {1});
  ExpectGpuError(ExitCode::kRankFailed, "train.adamw: master: expected one for a weight in BF16", [&] {
    side.train().AdamW(side.stream(), {.weight = weight.view(),
                                       .gradient = state.view(),
                                       .m = state.view(),
                                       .v = state.view(),
                                       .master = {},
                                       .grad_scale = scale.view()});
  });
}

TEST(TrainGpu, SumsAndClipping) {
  for (const int64_t count : {1, 1000, 1000003}) {
    ExpectSameOnBothSides(DType::kF32, [&](const Side& side) -> Named {
      const auto x = side.InSum(1, {count});
      const auto squares = side.PutF64({2}, {1}), sum = side.PutF64({1000}, {1}), scale = side.PutF64({-7}, {1});
      side.train().AddSumOfSquares(side.stream(), x.view(), squares.view());
      side.train().AddSum(side.stream(), x.view(), sum.view());
      Named results;
      for (const double max_norm : {0.0, 0.5, 1e9}) {
        side.train().ClipScale(
            side.stream(),
            {.sum_of_squares = squares.view(), .loss = sum.view(), .max_norm = max_norm, .scale = scale.view()});
        results.push_back({fmt::format("scale for {}", max_norm), side.Read(scale)});
      }
      results.push_back({"squares", side.Read(squares)});
      results.push_back({"sum", side.Read(sum)});
      return results;
    });
  }
}

// A norm or loss that is not finite or above its limit: a scale of NaN, with which AdamW changes nothing.
TEST(TrainGpu, SkippedUpdates) {
  for (const DType dtype : kGpuTypes) {
    const Side side = GpuSide(dtype);
    const Shape shape{1000};
    const auto weight = side.In(1, shape), m = side.InSum(2, shape), v = side.InSum(3, shape);
    const auto gradient = side.PutSum(std::vector<double>(1000, kNan), shape), wide = side.InSum(1, shape);
    const auto squares = side.PutF64({16}, {1}), loss = side.PutF64({5}, {1}), bad = side.PutF64({kNan}, {1});
    const auto scale = side.PutF64({1}, {1});
    const auto scale_of = [&](const Tensor& sum_of_squares, const Tensor& losses, double norm_limit,
                              double loss_limit) {
      side.train().ClipScale(side.stream(), {.sum_of_squares = sum_of_squares,
                                             .loss = losses,
                                             .max_norm = 1,
                                             .norm_limit = norm_limit,
                                             .loss_limit = loss_limit,
                                             .scale = scale.view()});
      return side.Read(scale)[0];
    };
    EXPECT_EQ(scale_of(squares.view(), loss.view(), 4, 5), 0.25);
    EXPECT_EQ(scale_of(squares.view(), {}, kInfinity, kInfinity), 0.25);
    EXPECT_TRUE(std::isnan(scale_of(squares.view(), loss.view(), 3.9, 5)));
    EXPECT_TRUE(std::isnan(scale_of(squares.view(), loss.view(), 4, 4.9)));
    EXPECT_TRUE(std::isnan(scale_of(bad.view(), loss.view(), kInfinity, kInfinity)));
    EXPECT_TRUE(std::isnan(scale_of(squares.view(), bad.view(), kInfinity, kInfinity)));
    const Named before = {{"weight", side.Read(weight)}, {"m", side.Read(m)}, {"v", side.Read(v)}};
    side.train().AdamW(side.stream(), {.weight = weight.view(),
                                       .gradient = gradient.view(),
                                       .m = m.view(),
                                       .v = v.view(),
                                       .master = dtype == DType::kBf16 ? wide.view() : Tensor(),
                                       .grad_scale = scale.view(),
                                       .learning_rate = 1e-2});
    EXPECT_TRUE(BitEqual("weight", side.Read(weight), before[0].second));
    EXPECT_TRUE(BitEqual("m", side.Read(m), before[1].second));
    EXPECT_TRUE(BitEqual("v", side.Read(v), before[2].second));
  }
}

TEST(TrainGpu, HashIsThatOfTheCpu) {
  for (const int32_t count : {2, 1000, 3000002}) {
    const auto hash_of = [&](const Side& side) {
      std::vector<int32_t> values(count);
      for (int32_t i = 0; i < count; ++i) values[i] = i % 1000 * 7919;
      const auto x = side.PutInts(values);
      const auto hash = side.PutF64({1}, {1});  // eight bytes for a number of I64
      side.train().Hash(side.stream(), x.view(), Tensor(hash.view().data, DType::kI64, hash.view().device, {1}));
      return std::bit_cast<int64_t>(side.Read(hash)[0]);
    };
    EXPECT_EQ(hash_of(GpuSide(DType::kF32)), hash_of(CpuSide(DType::kF32))) << count;
  }
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) { return longspan::test::RunGpuTests(argc, argv); }
