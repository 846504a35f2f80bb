// Compression by itself: against a naive evaluation of its definition, its backward against differences (fp64).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention/ops.h"
#include "tests/support/compare.h"
#include "tests/support/derivative.h"
#include "tests/support/machine.h"

namespace longspan::test {
namespace {

using Array = std::vector<double>;
constexpr int64_t kGroups = 2, kBlock = 8, kStride = 4;

// Compression: the blocks of x are kept where pages say, y is asked for in two segments.
struct CompressCase {
  static constexpr int64_t kWidth = 5, kHidden = 7, kPage = 12;
  explicit CompressCase(Phi phi) : phi(phi), machine(CpuMachine(DType::kF64)) {
    const int64_t n = kBlock * kWidth;
    shapes = {{96, kGroups, kWidth}};
    if (phi == Phi::kMlp)
      shapes.insert(shapes.end(), {{kBlock, kWidth}, {n, kHidden}, {kHidden}, {kHidden, kWidth}, {kWidth}});
    if (phi == Phi::kLinear) shapes.insert(shapes.end(), {{kGroups, kBlock, kWidth}, {kGroups, n, kWidth}});
    for (size_t i = 0; i < shapes.size(); ++i) inputs.push_back(Normal(shapes[i].count(), 10 + i));
  }

  // Tensors of the inputs' shapes: x first, then the weights in PhiWeights' order.
  PhiWeights Weights(const std::vector<OwnedTensor>& t) const {
    PhiWeights w;
    if (phi == Phi::kMlp) w = {t[1].view(), t[2].view(), t[3].view(), t[4].view(), t[5].view(), {}};
    if (phi == Phi::kLinear) {
      w.position = t[1].view();
      w.weight = t[2].view();
    }
    return w;
  }

  std::vector<OwnedTensor> UploadAll(const std::vector<Array>& values) const {
    std::vector<OwnedTensor> tensors;
    for (size_t i = 0; i < values.size(); ++i) tensors.push_back(Upload(machine, "input", values[i], shapes[i]));
    return tensors;
  }

  CompressArgs Args(const std::vector<OwnedTensor>& t, const Tensor& y) const {
    return {{{0, 40, 52}, {40, 51, 0}}, t[0].view(), {pages.view(), kPage}, phi, kBlock, kStride, Weights(t), y};
  }

  Array Forward(const std::vector<Array>& values) const {
    const std::vector<OwnedTensor> tensors = UploadAll(values);
    const OwnedTensor y(machine, "y", DType::kF64, {23, kGroups, kWidth});
    machine.ops->attention->Compress(*machine.stream, Args(tensors, y.view()));
    machine.stream->Synchronize();
    return Download(machine, y.view());
  }

  // By the definition.
  Array Evaluate(const std::vector<Array>& in) const {
    Array y(23 * kGroups * kWidth, std::numeric_limits<double>::quiet_NaN());
    const int64_t n = kBlock * kWidth;
    for (int64_t row = 0; row < 22; ++row) {
      for (int64_t g = 0; g < kGroups; ++g) {
        double* const out = &y[((row < 10 ? row + 13 : row - 10) * kGroups + g) * kWidth];
        std::fill_n(out, kWidth, 0);
        if (row == 0) continue;  // before compressed token 0
        Array block(n);
        for (int64_t i = 0; i < n; ++i) {
          const int64_t token = (row - 1) * kStride + i / kWidth;
          const int64_t place = table[token / kPage] * kPage + token % kPage;
          block[i] = in[0][(place * kGroups + g) * kWidth + i % kWidth];
          if (phi == Phi::kMlp) block[i] += in[1][i];
          if (phi == Phi::kLinear) block[i] += in[1][g * n + i];
        }
        for (int64_t c = 0; c < kWidth; ++c) {
          if (phi == Phi::kMlp) out[c] = in[5][c];
          for (int64_t m = 0; phi == Phi::kMlp && m < kHidden; ++m) {
            double x = in[3][m];
            for (int64_t i = 0; i < n; ++i) x += block[i] * in[2][i * kHidden + m];
            out[c] += 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))) * in[4][m * kWidth + c];
          }
          for (int64_t i = 0; phi == Phi::kLinear && i < n; ++i) out[c] += block[i] * in[2][(g * n + i) * kWidth + c];
          for (int64_t i = c; phi == Phi::kMean && i < n; i += kWidth) out[c] += block[i] / kBlock;
        }
      }
    }
    return y;
  }

  Phi phi;
  Machine machine;
  std::vector<Shape> shapes;
  std::vector<Array> inputs;
  std::vector<int32_t> table = {3, 0, 7, 1, 2, 6, 5, 4};
  OwnedTensor pages = Upload(machine, "pages", table, {8});
};

class Compression : public testing::TestWithParam<Phi> {};

TEST_P(Compression, IsItsDefinition) {
  const CompressCase c(GetParam());
  Array found = c.Forward(c.inputs), expected = c.Evaluate(c.inputs);
  // The second segment ends within a stride: its last row, 12 of y, is not written.
  const size_t row = kGroups * CompressCase::kWidth;
  for (size_t i = 12 * row; i < 13 * row; ++i) {
    EXPECT_TRUE(std::isnan(found[i]));
    found[i] = expected[i] = 0;
  }
  EXPECT_TRUE(RmsClose("y", found, expected, 1e-13));
}

TEST_P(Compression, BackwardIsTheDerivative) {
  const CompressCase c(GetParam());
  const Array d_y = Normal(23 * kGroups * CompressCase::kWidth, 30);
  const std::vector<OwnedTensor> tensors = c.UploadAll(c.inputs);
  std::vector<Array> fives;
  for (const Array& input : c.inputs) fives.push_back(Array(input.size(), 5));
  const std::vector<OwnedTensor> gradients = c.UploadAll(fives);
  const OwnedTensor y(c.machine, "y", DType::kF64, {23, kGroups, CompressCase::kWidth});
  const OwnedTensor d_y_tensor = Upload(c.machine, "d_y", d_y, y.view().shape);
  c.machine.ops->attention->CompressBackward(*c.machine.stream, c.Args(tensors, y.view()),
                                             {d_y_tensor.view(), gradients[0].view(), c.Weights(gradients)});
  c.machine.stream->Synchronize();
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    Array gradient = Download(c.machine, gradients[i].view());
    for (double& x : gradient) x -= 5;
    ExpectGradient("input " + std::to_string(i), c.inputs[i], gradient, [&](const Array& x) {
      std::vector<Array> inputs = c.inputs;
      inputs[i] = x;
      Array value = c.Evaluate(inputs);
      for (double& v : value) v = std::isnan(v) ? 0 : v;
      return Dot(value, d_y);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Compression, testing::Values(Phi::kMlp, Phi::kLinear, Phi::kMean));

}  // namespace
}  // namespace longspan::test
