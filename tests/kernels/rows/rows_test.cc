// Rows by index, casts, zeros. Everything here is exact.
#include <bit>
#include <cmath>

#include "kernels/rows/ops.h"
#include "tests/support/host_values.h"

namespace longspan::test {
namespace {

const std::unique_ptr<RowOps> kOps = MakeCpuRows();

template <typename T>
class RowsTest : public testing::Test {};
using RowTypes = testing::Types<float, double, int32_t, int64_t, uint16_t, uint8_t>;
TYPED_TEST_SUITE(RowsTest, RowTypes);

template <typename T>
Values<T> Counting(const Shape& shape) {
  Values<T> values(shape);
  for (int64_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(i + 1);
  return values;
}

TYPED_TEST(RowsTest, Gather) {
  using T = TypeParam;
  const Values<int32_t> index({4}, {3, 0, 3, 1});
  const auto from = Counting<T>({5, 2, 3});
  Values<T> gathered({4, 2, 3});
  kOps->Gather(HostStream(), from.view(), index.view(), gathered.view());
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t c = 0; c < 6; ++c) EXPECT_EQ(gathered[i * 6 + c], from[index[i] * 6 + c]);
  }
}

template <typename T>
class AddRowsTest : public testing::Test {};
TYPED_TEST_SUITE(AddRowsTest, FloatTypes);

TYPED_TEST(AddRowsTest, AddsInOrder) {
  using T = TypeParam;
  const int64_t rows = 300, width = 130;
  const auto from = Values<T>::Normal({rows, width}, 1), start = Values<T>::Normal({7, width}, 2);
  Values<int32_t> index({rows});
  for (int64_t i = 0; i < rows; ++i) index[i] = static_cast<int32_t>(i * i % 7);
  Values<T> expected = start;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < width; ++c) expected[index[i] * width + c] += from[i * width + c];
  }
  ExpectThreadsDoNotMatter<T>("add_rows", [&] {
    Values<T> to = start;
    kOps->Add(HostStream(), from.view(), index.view(), to.view());
    ExpectSameBits("add_rows", to, expected);
    return to;
  });
}

TEST(Rows, MarksThePlacesOfIds) {
  const Values<int32_t> ids({2, 3}, {0, 3, -1, 3, -1, 1}), place({4}, {5, 0, 1, 2});
  Values<uint8_t> marks({7}, {0, 0, 9, 0, 0, 0, 9});
  kOps->Mark(HostStream(), ids.view(), place.view(), marks.view());
  for (const auto& [i, mark] : {std::pair{0, 1}, {1, 0}, {2, 1}, {3, 0}, {4, 0}, {5, 1}, {6, 9}}) {
    EXPECT_EQ(marks[i], mark) << i;
  }
  for (const int32_t bad : {4, -2}) {
    const Values<int32_t> outside({1}, {bad});
    ExpectError(ExitCode::kRankFailed, {"rows.mark: ids[0]: expected -1 or a row in [0,4)"},
                [&] { kOps->Mark(HostStream(), outside.view(), place.view(), marks.view()); });
  }
}

TEST(Rows, NoRows) {
  const Values<int32_t> index({0});
  const auto from = Counting<float>({5, 2});
  Values<float> none({0, 2});
  kOps->Gather(HostStream(), from.view(), index.view(), none.view());
  kOps->Add(HostStream(), none.view(), index.view(), from.view());
  ExpectSameBits("from", from, Counting<float>({5, 2}));
}

TEST(Rows, RefusesByName) {
  const auto from = Counting<float>({5, 2});
  Values<float> to({2, 2}), wrong({3, 2});
  const Values<int32_t> index({2}, {0, 1});
  ExpectError(ExitCode::kRankFailed, {"rows.gather: to", "F32 [2,2]", "F32 [3,2]"},
              [&] { kOps->Gather(HostStream(), from.view(), index.view(), wrong.view()); });
  for (const int32_t bad : {5, -1}) {
    const Values<int32_t> outside({2}, {0, bad});
    ExpectError(ExitCode::kRankFailed, {"rows.gather: index[1]", "[0,5)", "found " + std::to_string(bad)},
                [&] { kOps->Gather(HostStream(), from.view(), outside.view(), to.view()); });
    ExpectError(ExitCode::kRankFailed, {"rows.add: index[1]"},
                [&] { kOps->Add(HostStream(), to.view(), outside.view(), from.view()); });
  }
  const auto integers = Counting<int32_t>({5, 2});
  const auto rows = Counting<int32_t>({2, 2});
  ExpectError(ExitCode::kRankFailed, {"rows.add: to", "I32"},
              [&] { kOps->Add(HostStream(), rows.view(), index.view(), integers.view()); });
}

Tensor AsBf16(const Values<uint16_t>& values) {
  Tensor view = values.view();
  view.dtype = DType::kBf16;
  return view;
}

TEST(Cast, Bf16RoundsToNearestEven) {
  const float step = 0x1p-7f;  // between neighbours above 1
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<float, uint16_t>> cases = {
      {0.0f, 0x0000},
      {-0.0f, 0x8000},
      {1.0f, 0x3F80},
      {1.0f + step / 2, 0x3F80},                        // tie, down to even
      {1.0f + step * 1.5f, 0x3F82},                     // tie, up to even
      {std::nextafter(1.0f + step / 2, 2.0f), 0x3F81},  // just above the tie
      {std::nextafter(1.0f + step * 1.5f, 0.0f), 0x3F81},
      {-1.0f - step * 1.5f, 0xBF82},
      {std::numeric_limits<float>::max(), 0x7F80},  // nearer to infinity's place than to the largest
      {infinity, 0x7F80},
      {-infinity, 0xFF80},
      {0x1p-133f, 0x0001},  // the smallest
      {0x1p-134f, 0x0000},  // half of it: tie to even
  };
  for (const auto& [value, bits] : cases) {
    Values<uint16_t> from_float({1}), from_double({1});
    kOps->Copy(HostStream(), Values<float>({1}, {value}).view(), AsBf16(from_float));
    kOps->Copy(HostStream(), Values<double>({1}, {value}).view(), AsBf16(from_double));
    EXPECT_EQ(from_float[0], bits) << value;
    EXPECT_EQ(from_double[0], bits) << value;
  }
  Values<uint16_t> nan({1});
  kOps->Copy(HostStream(), Values<float>({1}, {std::bit_cast<float>(0x7F800001u)}).view(), AsBf16(nan));
  Values<float> back({1});
  kOps->Copy(HostStream(), AsBf16(nan), back.view());
  EXPECT_TRUE(std::isnan(back[0]));
}

// 1 + 2^-8 + 2^-40 lies above a tie of BF16, but F32 would round it to the tie itself.
TEST(Cast, F64ToBf16RoundsOnce) {
  const Values<double> from({4}, {1 + 0x1p-8 + 0x1p-40, 1 + 3 * 0x1p-8 - 0x1p-40, -1 - 0x1p-8 - 0x1p-40, 1e300});
  Values<uint16_t> to({4});
  kOps->Copy(HostStream(), from.view(), AsBf16(to));
  EXPECT_EQ(to[0], 0x3F81);
  EXPECT_EQ(to[1], 0x3F81);
  EXPECT_EQ(to[2], 0xBF81);
  EXPECT_EQ(to[3], 0x7F80);
}

TEST(Cast, EveryBf16SurvivesTheWayThroughF32AndF64) {
  Values<uint16_t> all({1 << 16});
  for (int64_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  Values<float> single({1 << 16});
  Values<double> wide({1 << 16});
  Values<uint16_t> back({1 << 16});
  const auto same = [&](const char* name) {
    for (int64_t i = 0; i < all.size(); ++i) {
      const bool nan = (i & 0x7F80) == 0x7F80 && (i & 0x7F) != 0;
      ASSERT_EQ(back[i], nan ? all[i] | 0x40 : all[i]) << name << " " << i;
    }
  };
  kOps->Copy(HostStream(), AsBf16(all), single.view());
  kOps->Copy(HostStream(), single.view(), AsBf16(back));
  same("F32");
  kOps->Copy(HostStream(), AsBf16(all), wide.view());
  kOps->Copy(HostStream(), wide.view(), AsBf16(back));
  same("F64");
}

TEST(Cast, BetweenF32AndF64AndIntegers) {
  const Values<double> wide({3}, {0.1, -2.5, 1e40});
  Values<float> single({3});
  kOps->Copy(HostStream(), wide.view(), single.view());
  EXPECT_EQ(single[0], 0.1f);
  EXPECT_EQ(single[2], std::numeric_limits<float>::infinity());
  Values<double> back({3});
  kOps->Copy(HostStream(), single.view(), back.view());
  EXPECT_EQ(back[0], double{0.1f});
  EXPECT_EQ(back[1], -2.5);

  const Values<int64_t> integers({2}, {1LL << 60, -1});
  Values<int64_t> copy({2});
  kOps->Copy(HostStream(), integers.view(), copy.view());
  EXPECT_EQ(copy[0], 1LL << 60);
  const Values<int32_t> small({2}, {1, 2});
  ExpectError(ExitCode::kRankFailed, {"rows.copy", "I32 to I64"},
              [&] { kOps->Copy(HostStream(), small.view(), copy.view()); });
  ExpectError(ExitCode::kRankFailed, {"rows.copy", "[3]", "[2]"},
              [&] { kOps->Copy(HostStream(), wide.view(), copy.view()); });
}

TEST(Zero, FillsAllTypes) {
  Values<float> x({3, 5});
  Values<int64_t> integers({4});
  kOps->Zero(HostStream(), x.view());
  kOps->Zero(HostStream(), integers.view());
  ExpectSameBits("x", x, Values<float>::Filled({3, 5}, 0));
  EXPECT_EQ(integers[3], 0);
}

}  // namespace
}  // namespace longspan::test
