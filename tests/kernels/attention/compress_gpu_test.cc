// Compression forward and backward on a GPU against the CPU reference in F64, which gets the inputs as the GPU's type
// rounds them. Outputs start as NaN, gradients as 0.5 (they accumulate), rows of x that nobody may read are NaN; every
// run is made twice and must give the same bits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/attention/gpu/attention.h"
#include "tests/kernels/attention/compress_gpu_case.h"
#include "tests/support/compare.h"
#include "tests/support/gpu_values.h"

namespace longspan::test {
namespace {

using Array = std::vector<double>;
constexpr double kStart = 0.5;

AttentionOps& GpuOps() {
  static const std::unique_ptr<AttentionOps> ops = MakeGpuAttention();
  return *ops;
}

std::vector<Segment> SegmentsOf(const CompressCase& c) {
  return c.segments.empty() ? std::vector<Segment>{{0, c.tokens, 0}} : c.segments;
}

// Where token `t` of the sequence lies in the buffer of x.
class Placement {
 public:
  explicit Placement(const CompressCase& c) : page_rows(c.page_rows == 0 ? c.tokens : c.page_rows) {
    const int64_t pages = (c.tokens + page_rows - 1) / page_rows;
    table.resize(pages + 2);
    std::iota(table.begin(), table.end(), 0);
    std::mt19937_64 random(c.seed + 5);
    if (c.page_rows != 0) std::shuffle(table.begin(), table.end(), random);
    rows = (pages + 2) * page_rows;
    table.resize(pages);
  }
  int64_t at(int64_t t) const { return table[t / page_rows] * page_rows + t % page_rows; }

  std::vector<int32_t> table;
  int64_t page_rows, rows;
};

struct Results {
  Array y;                       // [rows,G,W]
  std::vector<Array> gradients;  // as InputsOf
};

Results RunOn(AttentionOps& ops, const Machine& machine, const CompressCase& c, const std::vector<Array>& inputs,
              const Array& d_y) {
  const bool gpu = machine.device->kind() == DeviceKind::kGpu;
  const Machine sums = {machine.device, machine.stream, machine.ops, gpu ? DType::kF32 : machine.dtype};
  const std::vector<CompressInput> named = InputsOf(c);
  const Placement place(c);
  const int64_t row_size = c.groups * c.width;
  std::vector<OwnedTensor> tensors, gradients;
  for (size_t i = 0; i < named.size(); ++i) {
    Array values = inputs[i];
    Shape shape = named[i].shape;
    if (i == 0) {
      shape = {place.rows, c.groups, c.width};
      values.assign(shape.count(), std::numeric_limits<double>::quiet_NaN());
      for (int64_t t = 0; t < c.tokens; ++t) {
        std::copy_n(inputs[0].begin() + t * row_size, row_size, values.begin() + place.at(t) * row_size);
      }
    }
    tensors.push_back(gpu ? UploadValues(machine, named[i].name, values, shape)
                          : Upload(machine, named[i].name, values, shape));
    gradients.push_back(Upload(sums, "d_" + named[i].name, Array(shape.count(), kStart), shape));
  }
  int64_t y_rows = 0;
  for (const Segment& segment : SegmentsOf(c)) {
    y_rows = std::max(y_rows, (segment.row + segment.length) / c.stride + 1);
  }
  const OwnedTensor table = Upload(machine, "table", place.table, {std::ssize(place.table)});
  const OwnedTensor y(machine, "y", machine.dtype, {y_rows, c.groups, c.width});
  Array local_d_y = d_y;
  local_d_y.resize(y_rows * row_size);
  const OwnedTensor d_y_tensor = Upload(sums, "d_y", local_d_y, y.view().shape);
  const CompressArgs args = {SegmentsOf(c), tensors[0].view(), {table.view(), place.page_rows}, c.phi,
                             c.block,       c.stride,          WeightsOf(c.phi, tensors),       y.view()};
  ops.Compress(*machine.stream, args);
  ops.CompressBackward(*machine.stream, args,
                       {d_y_tensor.view(), c.d_x ? gradients[0].view() : Tensor(), WeightsOf(c.phi, gradients)});
  machine.stream->Synchronize();
  Results results = {DownloadValues(machine, y.view()), {}};
  for (const OwnedTensor& gradient : gradients) results.gradients.push_back(Download(machine, gradient.view()));
  for (Array& gradient : results.gradients) {
    for (double& x : gradient) x -= kStart;
  }
  return results;
}

void ExpectSame(const CompressCase& c) {
  SCOPED_TRACE(fmt::format("{} phi {} S={} G={} W={} M={} l={} d={} pages of {}", DTypeName(c.dtype),
                           static_cast<int>(c.phi), c.tokens, c.groups, c.width, c.hidden, c.block, c.stride,
                           c.page_rows));
  std::mt19937_64 random(c.seed);
  std::normal_distribution<double> normal;
  const auto normals = [&](int64_t count, double scale, DType dtype) {
    Array values(count);
    for (double& x : values) x = scale * normal(random);
    return Rounded(std::move(values), dtype);
  };
  std::vector<Array> inputs;
  for (const CompressInput& input : InputsOf(c)) inputs.push_back(normals(input.shape.count(), input.scale, c.dtype));
  const Array d_y = normals((c.tokens / c.stride + 16) * c.groups * c.width, 1, DType::kF32);

  const Machine cpu = CpuMachine(DType::kF64), gpu = GpuMachine(c.dtype);
  const Results expected = RunOn(*cpu.ops->attention, cpu, c, inputs, d_y);
  const Results found = RunOn(GpuOps(), gpu, c, inputs, d_y);
  const Results again = RunOn(GpuOps(), gpu, c, inputs, d_y);

  // Rows of y that no segment holds stay NaN in both.
  ASSERT_EQ(found.y.size(), expected.y.size());
  Array found_y, expected_y;
  for (size_t i = 0; i < expected.y.size(); ++i) {
    if (std::isnan(expected.y[i])) {
      EXPECT_TRUE(std::isnan(found.y[i])) << "y at " << i;
    } else {
      found_y.push_back(found.y[i]);
      expected_y.push_back(expected.y[i]);
    }
  }
  const double tolerance = c.dtype == DType::kF32 ? 1e-5 : 0.005;
  EXPECT_TRUE(RmsClose("y", found_y, expected_y, tolerance));
  EXPECT_TRUE(BitEqual("y", again.y, found.y));
  const std::vector<CompressInput> named = InputsOf(c);
  for (size_t i = 0; i < named.size(); ++i) {
    // The reference keeps the hidden layer unrounded, and few elements hardly average the rounding of BF16.
    const double allowed = named[i].shape.count() < 100 ? 1.5 * tolerance : tolerance;
    EXPECT_TRUE(RmsClose("d_" + named[i].name, found.gradients[i], expected.gradients[i], allowed));
    EXPECT_TRUE(BitEqual("d_" + named[i].name, again.gradients[i], found.gradients[i]));
  }
}

constexpr Phi kKinds[] = {Phi::kMlp, Phi::kLinear, Phi::kMean};

TEST(CompressGpu, Bf16) {
  for (const Phi phi : kKinds) {
    for (const int64_t width : {64, 128, 192}) {
      ExpectSame({.phi = phi, .tokens = 1024, .groups = 4, .width = width, .hidden = 2 * width});
    }
  }
}

TEST(CompressGpu, OddSizes) {
  for (const Phi phi : kKinds) {
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      ExpectSame({.dtype = dtype,
                  .phi = phi,
                  .tokens = 203,
                  .groups = 3,
                  .width = 5,
                  .hidden = 7,
                  .block = 12,
                  .stride = 4,
                  .page_rows = 20});
      ExpectSame({.dtype = dtype,
                  .phi = phi,
                  .tokens = 96,
                  .groups = 1,
                  .width = 8,
                  .hidden = 24,
                  .block = 16,
                  .stride = 16,
                  .page_rows = 7});
    }
    for (const int64_t width : {64, 128, 192}) {
      ExpectSame({.dtype = DType::kF32, .phi = phi, .tokens = 700, .groups = 2, .width = width});
    }
  }
}

TEST(CompressGpu, SegmentsAndPages) {
  for (const Phi phi : kKinds) {
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      // Neighbours: the second's first token reaches back into the first's rows; one within a stride of its end.
      ExpectSame(
          {.dtype = dtype, .phi = phi, .tokens = 640, .segments = {{0, 128, 256}, {128, 250, 0}}, .page_rows = 64});
      ExpectSame({.dtype = dtype,
                  .phi = phi,
                  .tokens = 640,
                  .block = 64,
                  .segments = {{16, 64, 0}, {512, 128, 64}},
                  .page_rows = 16});
    }
  }
}

TEST(CompressGpu, NoTokensAtAll) {
  for (const Phi phi : kKinds) ExpectSame({.phi = phi, .tokens = 31});
}

TEST(CompressGpu, WithoutTheInputsGradient) { ExpectSame({.d_x = false}); }

// More rows than one panel.
TEST(CompressGpu, ManyRows) {
  for (const Phi phi : kKinds) {
    ExpectSame({.phi = phi, .tokens = 9000, .groups = 3, .width = 16, .hidden = 32, .block = 8, .stride = 4});
    ExpectSame(
        {.phi = phi, .tokens = 18000, .groups = 2, .width = 8, .hidden = 16, .block = 8, .stride = 4, .page_rows = 8});
  }
}

// What a compressed token gets does not depend on the segments.
TEST(CompressGpu, SplitsDoNotMatter) {
  CompressCase c = {.tokens = 1024};
  std::mt19937_64 random(9);
  std::normal_distribution<double> normal;
  std::vector<Array> inputs;
  for (const CompressInput& input : InputsOf(c)) {
    Array& values = inputs.emplace_back(input.shape.count());
    for (double& x : values) x = input.scale * normal(random);
  }
  const int64_t row_size = c.groups * c.width, rows = c.tokens / c.stride;
  const Array d_y((rows + 1) * row_size, 1.0);
  const Machine gpu = GpuMachine(c.dtype);
  const Array whole = RunOn(GpuOps(), gpu, c, inputs, d_y).y;
  c.segments = {{320, 704, 0}, {0, 320, 704}};
  c.page_rows = 64;
  const Array parts = RunOn(GpuOps(), gpu, c, inputs, d_y).y;
  Array ordered(parts.begin() + 44 * row_size, parts.begin() + rows * row_size);
  ordered.insert(ordered.end(), parts.begin(), parts.begin() + 44 * row_size);
  EXPECT_TRUE(BitEqual("y", ordered, Array(whole.begin(), whole.begin() + rows * row_size)));
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return longspan::GpuCount() == 0 ? 77 : RUN_ALL_TESTS();
}
