// The operations on rows on a GPU against the CPU in F64. Copies and zeros are exact.
#include <limits>
#include <random>

#include "kernels/host_copy.h"
#include "kernels/rows/ops.h"
#include "tests/support/gpu_sides.h"

namespace longspan::test {
namespace {

TEST(RowsGpu, GatherAndAdd) {
  std::vector<int32_t> repeated(700);
  std::mt19937_64 random(1);
  for (int32_t& row : repeated) row = random() % 2 ? 5 : random() % 50;
  for (const DType dtype : kGpuTypes) {
    for (const int64_t width : {1, 3, 8, 700}) {
      SCOPED_TRACE(width);
      ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
        const auto from = side.In(1, {50, 2, width}), many = side.In(2, {700, 2, width}),
                   to = side.Out({700, 2, width});
        const auto sums = side.In(3, {50, 2, width});
        const auto index = side.PutInts(repeated);
        side.rows().Gather(side.stream(), from.view(), index.view(), to.view());
        side.rows().Add(side.stream(), many.view(), index.view(), sums.view());
        return {{"gathered", side.Read(to)}, {"added", side.Read(sums)}};
      });
    }
  }
}

TEST(RowsGpu, MarksThePlacesOfIds) {
  const int32_t rows = 1000;
  std::mt19937_64 random(2);
  std::vector<int32_t> ids(70001), place(rows);
  for (int32_t& id : ids) id = random() % 3 == 0 ? -1 : static_cast<int32_t>(random() % (rows / 2)) * 2;
  for (int32_t i = 0; i < rows; ++i) place[i] = rows - 1 - i;
  std::vector<uint8_t> expected(rows + 3, 0);
  for (const int32_t id : ids) {
    if (id != -1) expected[place[id]] = 1;
  }
  const Side side = GpuSide(DType::kF32);
  const auto id = side.PutInts(ids), at = side.PutInts(place);
  const auto marks = side.PutInts(std::vector<int32_t>(expected.size() / 4 + 1, 0));  // as bytes
  const Tensor bytes(marks.view().data, DType::kU8, DeviceKind::kGpu, {static_cast<int64_t>(expected.size())});
  side.rows().Mark(side.stream(), id.view(), at.view(), bytes);
  EXPECT_EQ(HostValues<uint8_t>(side.device(), side.stream(), bytes), expected);
  ids[5] = rows;
  side.rows().Mark(side.stream(), side.PutInts(ids).view(), at.view(), bytes);
  ExpectGpuError(ExitCode::kData, "index 1000 at position 5", [&] { side.stream().Synchronize(); });
}

TEST(RowsGpu, IndicesOutsideTheTensorAreErrors) {
  const Side side = GpuSide(DType::kF32);
  const auto rows = side.In(1, {4, 8}), to = side.In(2, {3, 8});
  const auto index = side.PutInts({0, 4, 1});
  const auto expect = [&] {
    ExpectGpuError(ExitCode::kData, "index 4 at position 1", [&] { side.stream().Synchronize(); });
  };
  side.rows().Gather(side.stream(), rows.view(), index.view(), to.view());
  expect();
  side.rows().Add(side.stream(), to.view(), index.view(), rows.view());
  expect();
}

TEST(RowsGpu, CopiesCastToTheNearest) {
  const Side side = GpuSide(DType::kBf16);
  std::vector<double> values = Side::Normal(1, {4099}, 1);
  values.insert(values.end(),
                {1 + 0x1p-8, 1 + 3 * 0x1p-8, 1e-40, 3.4e38, std::numeric_limits<double>::infinity(), -0.0});
  values = Rounded(values, DType::kF32);
  const Shape shape{static_cast<int64_t>(values.size())};
  const auto wide = side.PutSum(values, shape), narrow = side.Out(shape), back = side.OutSum(shape);
  side.rows().Copy(side.stream(), wide.view(), narrow.view());
  side.rows().Copy(side.stream(), narrow.view(), back.view());
  EXPECT_TRUE(BitEqual("narrow", side.Read(narrow), Rounded(values, DType::kBf16)));
  EXPECT_TRUE(BitEqual("back", side.Read(back), Rounded(values, DType::kBf16)));
  side.rows().Zero(side.stream(), back.view());
  EXPECT_TRUE(BitEqual("zero", side.Read(back), std::vector<double>(values.size(), 0)));
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) { return longspan::test::RunGpuTests(argc, argv); }
