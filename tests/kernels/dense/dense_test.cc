// Norm, SwiGLU, gates, embedding, products as operations: values in fp64, gradients by finite differences, bits of a
// token whatever its company, threads, refusals.
#include "kernels/dense/ops.h"
#include "tests/support/host_values.h"

namespace longspan::test {
namespace {

const std::unique_ptr<DenseOps> kOps = MakeCpuDense();

template <typename T>
class DenseTest : public testing::Test {};
TYPED_TEST_SUITE(DenseTest, FloatTypes);

// The rows [begin, end) of x.
template <typename T>
Values<T> RowsOf(const Values<T>& x, int64_t begin, int64_t end) {
  const int64_t width = x.size() / x.shape()[0];
  Shape shape = x.shape();
  shape[0] = end - begin;
  return Values<T>(shape, std::vector<T>(&x[begin * width], &x[begin * width] + shape.count()));
}

// `op` on all rows and on rows [begin, end) alone gives those rows the same bits.
template <typename T>
void ExpectRowsStandAlone(const std::string& name, const Values<T>& x,
                          const std::function<Values<T>(const Values<T>&)>& op) {
  const Values<T> all = op(x);
  const int64_t rows = x.shape()[0];
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {1, 4}, {3, rows}, {rows - 1, rows}}) {
    ExpectSameBits(name, op(RowsOf(x, begin, end)), RowsOf(all, begin, end));
  }
}

TYPED_TEST(DenseTest, MatMulModes) {
  using T = TypeParam;
  const auto x = Values<T>::Normal({5, 7}, 1), w = Values<T>::Normal({7, 3}, 2), dy = Values<T>::Normal({5, 3}, 3);
  Values<T> y({5, 3}), dx({5, 7});
  Values<T> dw = Values<T>::Filled({7, 3}, 1);
  kOps->MatMul(HostStream(), {x.view(), w.view(), y.view()});
  kOps->MatMul(HostStream(), {dy.view(), w.view(), dx.view(), false, true});
  kOps->MatMul(HostStream(), {x.view(), dy.view(), dw.view(), true, false, true});
  std::vector<double> y_expected(15, 0), dx_expected(35, 0), dw_expected(21, 1);
  for (int t = 0; t < 5; ++t) {
    for (int i = 0; i < 7; ++i) {
      for (int o = 0; o < 3; ++o) {
        y_expected[t * 3 + o] += double{x[t * 7 + i]} * double{w[i * 3 + o]};
        dx_expected[t * 7 + i] += double{dy[t * 3 + o]} * double{w[i * 3 + o]};
        dw_expected[i * 3 + o] += double{x[t * 7 + i]} * double{dy[t * 3 + o]};
      }
    }
  }
  ExpectClose("y", y, y_expected);
  ExpectClose("dx", dx, dx_expected);
  ExpectClose("dw", dw, dw_expected);
}

// Another tensor is added as c itself is with `accumulate`, to the bit.
TYPED_TEST(DenseTest, MatMulPlusAnotherTensor) {
  using T = TypeParam;
  const auto x = Values<T>::Normal({5, 700}, 1), w = Values<T>::Normal({700, 3}, 2), add = Values<T>::Normal({5, 3}, 3);
  Values<T> y({5, 3}), sum = add;
  kOps->MatMul(HostStream(), {.a = x.view(), .b = w.view(), .c = y.view(), .add = add.view()});
  kOps->MatMul(HostStream(), {.a = x.view(), .b = w.view(), .c = sum.view(), .accumulate = true});
  ExpectSameBits("y", y, sum);
}

TYPED_TEST(DenseTest, RmsNormValues) {
  using T = TypeParam;
  for (const int64_t width : {1, 5, 16, 37, 128}) {
    const auto x = Values<T>::Normal({3, 2, width}, width), weight = Values<T>::Normal({width}, 2);
    Values<T> y(x.shape());
    kOps->RmsNorm(HostStream(), {x.view(), weight.view(), 1e-3, y.view()});
    std::vector<double> expected;
    for (int64_t row = 0; row < 6; ++row) {
      double squares = 0;
      for (int64_t c = 0; c < width; ++c) squares += double{x[row * width + c]} * double{x[row * width + c]};
      for (int64_t c = 0; c < width; ++c) {
        expected.push_back(x[row * width + c] / std::sqrt(squares / width + 1e-3) * weight[c]);
      }
    }
    ExpectClose("y", y, expected);
  }
}

TEST(Dense, RmsNormGradient) {
  const int64_t width = 19;
  auto x = Values<double>::Normal({7, width}, 1), weight = Values<double>::Normal({width}, 2);
  const auto probe = Values<double>::Normal({7, width}, 3);
  Values<double> y(x.shape()), d_x(x.shape());
  const auto before = Values<double>::Normal({width}, 4);
  Values<double> d_weight = before;
  const RmsNormArgs args{x.view(), weight.view(), 1e-2, y.view()};
  const auto loss = [&] {
    kOps->RmsNorm(HostStream(), args);
    return Dot(y, probe);
  };
  kOps->RmsNormBackward(HostStream(), args, {probe.view(), d_x.view(), d_weight.view()});
  ExpectGradient("d_x", d_x, x, loss);

  Values<double> accumulated = before.Filled(x.shape(), 1);
  Values<double> in_place = probe;
  kOps->RmsNormBackward(HostStream(), args, {probe.view(), accumulated.view(), {}, true});
  kOps->RmsNormBackward(HostStream(), args, {in_place.view(), in_place.view(), {}});
  ExpectSameBits("d_x in place", in_place, d_x);
  for (int64_t i = 0; i < d_x.size(); ++i) EXPECT_NEAR(accumulated[i], d_x[i] + 1, 1e-14);

  for (int64_t c = 0; c < width; ++c) d_weight[c] -= before[c];
  ExpectGradient("d_weight", d_weight, weight, loss);
}

TYPED_TEST(DenseTest, RowsStandAlone) {
  using T = TypeParam;
  const auto x = Values<T>::Normal({9, 37}, 1), weight = Values<T>::Normal({37}, 2);
  const auto matrix = Values<T>::Normal({37, 45}, 3);
  ExpectRowsStandAlone<T>("rms_norm", x, [&](const Values<T>& rows) {
    Values<T> y(rows.shape());
    kOps->RmsNorm(HostStream(), {rows.view(), weight.view(), 1e-5, y.view()});
    return y;
  });
  ExpectRowsStandAlone<T>("swiglu", x, [&](const Values<T>& rows) {
    Values<T> y(rows.shape());
    kOps->SwiGlu(HostStream(), {rows.view(), rows.view(), y.view()});
    return y;
  });
  ExpectRowsStandAlone<T>("gate", x, [&](const Values<T>& rows) {
    Values<T> y(rows.shape());
    kOps->Gate(HostStream(), {rows.view(), weight.view(), y.view()});
    return y;
  });
  ExpectRowsStandAlone<T>("matmul", x, [&](const Values<T>& rows) {
    Values<T> y({rows.shape()[0], 45});
    kOps->MatMul(HostStream(), {rows.view(), matrix.view(), y.view()});
    return y;
  });
}

TYPED_TEST(DenseTest, SwiGluValues) {
  using T = TypeParam;
  const auto gate = Values<T>::Normal({5, 13}, 1, 3), up = Values<T>::Normal({5, 13}, 2);
  Values<T> y(gate.shape());
  kOps->SwiGlu(HostStream(), {gate.view(), up.view(), y.view()});
  std::vector<double> expected;
  for (int64_t i = 0; i < y.size(); ++i) expected.push_back(gate[i] / (1 + std::exp(-double{gate[i]})) * up[i]);
  ExpectClose("y", y, expected);
}

TYPED_TEST(DenseTest, SigmoidsOfHugeNumbersAreFinite) {
  using T = TypeParam;
  const Values<T> x({1, 4}, {T(-1e30), T(-200), T(200), T(1e30)});
  const auto one = Values<T>::Filled({1, 4}, 1), zero = Values<T>::Filled({4}, 0);
  Values<T> y(x.shape()), d_gate(x.shape()), d_up(x.shape());
  kOps->Gate(HostStream(), {x.view(), zero.view(), y.view()});
  EXPECT_NEAR(y[0], 0, 1e-80);
  EXPECT_EQ(y[3], 1);
  kOps->SwiGlu(HostStream(), {x.view(), one.view(), y.view()});
  EXPECT_NEAR(y[0], 0, 1e-50);
  EXPECT_EQ(y[3], T(1e30));
  kOps->SwiGluBackward(HostStream(), {x.view(), one.view(), y.view()}, {one.view(), d_gate.view(), d_up.view()});
  EXPECT_TRUE(AllFinite("d_gate", d_gate.Doubles()));
  EXPECT_TRUE(AllFinite("d_up", d_up.Doubles()));
}

TEST(Dense, SwiGluGradient) {
  auto gate = Values<double>::Normal({5, 13}, 1, 2), up = Values<double>::Normal({5, 13}, 2);
  const auto probe = Values<double>::Normal({5, 13}, 3);
  Values<double> y(gate.shape()), d_gate(gate.shape()), d_up(gate.shape());
  const SwiGluArgs args{gate.view(), up.view(), y.view()};
  const auto loss = [&] {
    kOps->SwiGlu(HostStream(), args);
    return Dot(y, probe);
  };
  kOps->SwiGluBackward(HostStream(), args, {probe.view(), d_gate.view(), d_up.view()});
  ExpectGradient("d_gate", d_gate, gate, loss);
  ExpectGradient("d_up", d_up, up, loss);
}

TEST(Dense, GateGradient) {
  auto x = Values<double>::Normal({11, 6}, 1), bias = Values<double>::Normal({6}, 2);
  const auto probe = Values<double>::Normal({11, 6}, 3);
  Values<double> y(x.shape()), d_x(x.shape());
  auto d_bias = Values<double>::Filled({6}, 0.5);
  const GateArgs args{x.view(), bias.view(), y.view()};
  const auto loss = [&] {
    kOps->Gate(HostStream(), args);
    return Dot(y, probe);
  };
  loss();
  EXPECT_NEAR(y[8], 1 / (1 + std::exp(-(x[8] + bias[2]))), 1e-15);
  kOps->GateBackward(HostStream(), args, {probe.view(), d_x.view(), d_bias.view()});
  for (int64_t c = 0; c < 6; ++c) d_bias[c] -= 0.5;
  ExpectGradient("d_x", d_x, x, loss);
  ExpectGradient("d_bias", d_bias, bias, loss);
}

TYPED_TEST(DenseTest, EmbeddingAndItsGradient) {
  using T = TypeParam;
  const Values<int32_t> tokens({5}, {2, 0, 2, 3, 2});
  const auto weight = Values<T>::Normal({4, 70}, 1), d_y = Values<T>::Normal({5, 70}, 2);
  Values<T> y({5, 70});
  auto d_weight = Values<T>::Filled({4, 70}, 1);
  kOps->Embedding(HostStream(), {tokens.view(), weight.view(), y.view()});
  kOps->EmbeddingBackward(HostStream(), {tokens.view(), weight.view(), y.view()}, {d_y.view(), d_weight.view()});
  auto expected = Values<T>::Filled({4, 70}, 1);
  for (int64_t t = 0; t < 5; ++t) {
    for (int64_t c = 0; c < 70; ++c) {
      EXPECT_EQ(y[t * 70 + c], weight[tokens[t] * 70 + c]);
      expected[tokens[t] * 70 + c] += d_y[t * 70 + c];
    }
  }
  ExpectSameBits("d_weight", d_weight, expected);
}

TYPED_TEST(DenseTest, Add) {
  using T = TypeParam;
  const auto x = Values<T>::Normal({3, 7000}, 1), start = Values<T>::Normal({3, 7000}, 2);
  Values<T> y = start;
  kOps->Add(HostStream(), x.view(), y.view());
  for (int64_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], start[i] + x[i]);
}

TYPED_TEST(DenseTest, ThreadsDoNotMatter) {
  using T = TypeParam;
  const auto x = Values<T>::Normal({501, 40}, 1), d_y = Values<T>::Normal({501, 40}, 2);
  const auto weight = Values<T>::Normal({40}, 3);
  Values<int32_t> tokens({501});
  for (int64_t t = 0; t < 501; ++t) tokens[t] = static_cast<int32_t>(t * 7 % 13);
  ExpectThreadsDoNotMatter<T>("rms_norm d_weight", [&] {
    Values<T> d_x(x.shape());
    auto d_weight = Values<T>::Filled({40}, 0);
    kOps->RmsNormBackward(HostStream(), {x.view(), weight.view(), 1e-5, {}}, {d_y.view(), d_x.view(), d_weight.view()});
    return d_weight;
  });
  ExpectThreadsDoNotMatter<T>("gate d_bias", [&] {
    Values<T> d_x(x.shape());
    auto d_bias = Values<T>::Filled({40}, 0);
    kOps->GateBackward(HostStream(), {x.view(), weight.view(), x.view()}, {d_y.view(), d_x.view(), d_bias.view()});
    return d_bias;
  });
  ExpectThreadsDoNotMatter<T>("embedding d_weight", [&] {
    auto d_weight = Values<T>::Filled({13, 40}, 0);
    kOps->EmbeddingBackward(HostStream(), {tokens.view(), {}, {}}, {d_y.view(), d_weight.view()});
    return d_weight;
  });
}

TEST(Dense, RefusesByName) {
  const auto x = Values<float>::Normal({4, 6}, 1), small = Values<float>::Normal({5}, 1);
  const auto wide = Values<double>::Normal({4, 6}, 1);
  Values<float> y({4, 6});
  ExpectError(ExitCode::kRankFailed, {"dense.rms_norm: weight", "[6]", "[5]"}, [&] {
    kOps->RmsNorm(HostStream(), {x.view(), small.view(), 1e-5, y.view()});
  });
  ExpectError(ExitCode::kRankFailed, {"dense.swiglu: up", "F32", "F64"}, [&] {
    kOps->SwiGlu(HostStream(), {x.view(), wide.view(), y.view()});
  });
  ExpectError(ExitCode::kRankFailed, {"dense.matmul: b", "[6,6]", "[4,6]"}, [&] {
    kOps->MatMul(HostStream(), {x.view(), x.view(), y.view()});
  });
  const auto square = Values<float>::Normal({6, 6}, 1);
  ExpectError(ExitCode::kRankFailed, {"dense.matmul: add", "F32 [4,6]", "F32 [5]"}, [&] {
    kOps->MatMul(HostStream(), {.a = x.view(), .b = square.view(), .c = y.view(), .add = small.view()});
  });
  ExpectError(ExitCode::kRankFailed, {"dense.matmul: add", "accumulate"}, [&] {
    kOps->MatMul(HostStream(), {.a = x.view(), .b = square.view(), .c = y.view(), .accumulate = true, .add = x.view()});
  });
  ExpectError(ExitCode::kRankFailed, {"dense.add: x", "found none"}, [&] {
    Tensor none = y.view();
    none.data = nullptr;
    kOps->Add(HostStream(), none, y.view());
  });
  ExpectError(ExitCode::kRankFailed, {"dense.add: y", "contiguous"}, [&] {
    Tensor strided = y.view();
    strided.stride[0] = 12;
    kOps->Add(HostStream(), x.view(), strided);
  });
}

TEST(Dense, RefusesTokensBeyondTheVocabulary) {
  const auto weight = Values<float>::Normal({10, 4}, 1);
  Values<float> y({3, 4});
  for (const int32_t bad : {10, -1}) {
    const Values<int32_t> tokens({3}, {1, bad, 2});
    ExpectError(ExitCode::kData, {"token " + std::to_string(bad), "position 1", "[0,10)"}, [&] {
      kOps->Embedding(HostStream(), {tokens.view(), weight.view(), y.view()});
    });
  }
}

}  // namespace
}  // namespace longspan::test
