// RoPE against plain cosines and sines, its inverse, and the table against numbers worked out by hand.
#include <cmath>

#include "kernels/dense/ops.h"
#include "tests/support/host_values.h"

namespace longspan::test {
namespace {

const std::unique_ptr<DenseOps> kOps = MakeCpuDense();

template <typename T>
class RopeTest : public testing::Test {};
TYPED_TEST_SUITE(RopeTest, FloatTypes);

TYPED_TEST(RopeTest, PairsChannelsHalfTheWidthApart) {
  using T = TypeParam;
  const int64_t rows = 4, heads = 3, width = 10, half = 5;
  const auto x = Values<T>::Normal({rows, heads, width}, 1);
  const Values<int32_t> positions({rows}, {0, 7, 1000, 999999});
  const RopeTable table = MakeRopeTable({.theta = 10000}, width);
  const Values<double> frequency({half}, table.frequency);
  Values<T> y(x.shape());
  kOps->Rope(HostStream(), {x.view(), y.view(), positions.view(), frequency.view(), 1.25});
  std::vector<double> expected(y.size());
  for (int64_t i = 0; i < rows * heads; ++i) {
    for (int64_t c = 0; c < half; ++c) {
      const double angle = positions[i / heads] * std::pow(10000.0, -2.0 * c / width);
      const double first = x[i * width + c], second = x[i * width + c + half];
      expected[i * width + c] = 1.25 * (first * std::cos(angle) - second * std::sin(angle));
      expected[i * width + c + half] = 1.25 * (second * std::cos(angle) + first * std::sin(angle));
    }
  }
  EXPECT_TRUE(RmsClose("y", y.Doubles(), expected, std::is_same_v<T, float> ? 1e-6 : 1e-10));

  Values<T> in_place = x;
  kOps->Rope(HostStream(), {in_place.view(), in_place.view(), positions.view(), frequency.view(), 1.25});
  ExpectSameBits("in place", in_place, y);

  // One row alone has the same bits.
  const Values<int32_t> last({1}, {999999});
  Values<T> alone({1, heads, width});
  kOps->Rope(HostStream(), {x.view().Rows(3, 1), alone.view(), last.view(), frequency.view(), 1.25});
  EXPECT_EQ(std::memcmp(&alone[0], &y[3 * heads * width], alone.view().bytes()), 0);
}

TEST(Rope, InverseIsTheTranspose) {
  const Shape shape{3, 2, 6};
  const auto x = Values<double>::Normal(shape, 1), probe = Values<double>::Normal(shape, 2);
  const Values<int32_t> positions({3}, {5, 0, 123});
  const Values<double> frequency({3}, {1.0, 0.3, 0.01});
  Values<double> y(shape), d_x(shape);
  kOps->Rope(HostStream(), {x.view(), y.view(), positions.view(), frequency.view(), 1.5});
  kOps->Rope(HostStream(), {probe.view(), d_x.view(), positions.view(), frequency.view(), 1.5, true});
  EXPECT_NEAR(Dot(y, probe), Dot(x, d_x), 1e-13);
  Values<double> back(shape);
  kOps->Rope(HostStream(), {y.view(), back.view(), positions.view(), frequency.view(), 1 / 1.5, true});
  EXPECT_TRUE(RmsClose("back", back.Doubles(), x.Doubles(), 1e-14));
}

TEST(Rope, PlainTable) {
  const RopeTable table = MakeRopeTable({.theta = 10000}, 8);
  ASSERT_EQ(table.frequency.size(), 4u);
  EXPECT_NEAR(table.frequency[0], 1, 1e-15);
  EXPECT_NEAR(table.frequency[1], 0.1, 1e-15);
  EXPECT_NEAR(table.frequency[2], 0.01, 1e-16);
  EXPECT_NEAR(table.frequency[3], 0.001, 1e-17);
  EXPECT_EQ(table.factor, 1);
}

// theta 10000, K=16, context 2048, factor 8, beta 32 and 1. The pair with r turns within the context is
// 16 ln(2048/(2 pi r)) / (2 ln 10000) = 0.868589 ln(325.949/r): r=32 gives 2.016, down to 2; r=1 gives 5.026, up to 6.
// So pairs 0..2 keep their frequency, 3, 4, 5 are 1/4, 2/4, 3/4 of the way to an eighth of it, 6 and 7 have an eighth.
TEST(Rope, YarnByHand) {
  RopeConfig config{.theta = 10000, .scaling = RopeScaling::kYarn, .factor = 8, .original_max_position = 2048};
  const RopeTable table = MakeRopeTable(config, 16);
  const double share[] = {1, 1, 1, 25.0 / 32, 18.0 / 32, 11.0 / 32, 1.0 / 8, 1.0 / 8};
  const double plain[] = {1,    0.31622776601683794,   0.1,   0.031622776601683794,
                          0.01, 0.0031622776601683794, 0.001, 0.00031622776601683794};
  ASSERT_EQ(table.frequency.size(), 8u);
  for (int i = 0; i < 8; ++i) EXPECT_NEAR(table.frequency[i], share[i] * plain[i], 1e-15 * plain[i]) << i;
  EXPECT_NEAR(table.factor, 1.2079441541679836, 1e-15);  // 0.1 ln 8 + 1

  config.attention_factor = 1.5;
  EXPECT_EQ(MakeRopeTable(config, 16).factor, 1.5);
  config.attention_factor = 0;
  config.factor = 1;
  EXPECT_EQ(MakeRopeTable(config, 16).factor, 1);
}

// Both ends of the ramp past the table: low is cut to 0, high to K-1; and equal ends make a step.
TEST(Rope, YarnEdges) {
  // K=4, theta 100: the pair with r turns is 4 ln(64/(2 pi r)) / (2 ln 100) = 0.434294 ln(10.186/r). r=32 gives -0.50
  // -> -1
  // -> 0; r=0.001 gives 4.01 -> 5 -> 3. Pair 1 is a third of the way to a half.
  const RopeTable cut = MakeRopeTable({.theta = 100,
                                       .scaling = RopeScaling::kYarn,
                                       .factor = 2,
                                       .original_max_position = 64,
                                       .beta_fast = 32,
                                       .beta_slow = 0.001},
                                      4);
  EXPECT_NEAR(cut.frequency[0], 1, 1e-15);
  EXPECT_NEAR(cut.frequency[1], 0.1 * (1 - 1.0 / 6), 1e-15);
  // Both ends at pair 0 (4 turns: 0.41 -> 0; 12 turns: -0.07 -> -0): a step after pair 0.
  const RopeTable step = MakeRopeTable({.theta = 100,
                                        .scaling = RopeScaling::kYarn,
                                        .factor = 2,
                                        .original_max_position = 64,
                                        .beta_fast = 12,
                                        .beta_slow = 12},
                                       4);
  EXPECT_NEAR(step.frequency[0], 1, 1e-15);
  EXPECT_NEAR(step.frequency[1], 0.05, 1e-15);
}

TEST(Rope, RefusesByName) {
  const auto x = Values<float>::Normal({2, 1, 4}, 1);
  Values<float> y(x.shape());
  const Values<int32_t> positions({3}, {0, 1, 2});
  const Values<double> frequency({2}, {1, 0.1});
  ExpectError(ExitCode::kRankFailed, {"dense.rope: positions", "[2]", "[3]"}, [&] {
    kOps->Rope(HostStream(), {x.view(), y.view(), positions.view(), frequency.view()});
  });
  const auto odd = Values<float>::Normal({2, 1, 5}, 1);
  ExpectError(ExitCode::kRankFailed, {"dense.rope: x", "even", "[2,1,5]"}, [&] {
    kOps->Rope(HostStream(), {odd.view(), odd.view(), positions.view(), frequency.view()});
  });
  ExpectError(ExitCode::kRankFailed, {"even key width", "7"}, [] { MakeRopeTable({}, 7); });
}

}  // namespace
}  // namespace longspan::test
