// The dense operations on a GPU against the CPU in F64: values, gradients, bits of repeated runs, faults.
#include <cmath>

#include "kernels/dense/ops.h"
#include "tests/support/gpu_sides.h"

namespace longspan::test {
namespace {

TEST(DenseGpu, MatMul) {
  const int64_t sizes[][3] = {{1, 1, 1}, {5, 7, 3}, {64, 128, 96}, {130, 257, 65}, {33, 40, 512}};
  for (const DType dtype : kGpuTypes) {
    for (const auto& [m, n, k] : sizes) {
      for (int mode = 0; mode < 16; ++mode) {
        const bool transpose_a = mode & 1, transpose_b = mode & 2, accumulate = mode & 4, wide = mode & 8;
        SCOPED_TRACE(fmt::format("[{},{},{}] mode {}", m, n, k, mode));
        ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
          const auto a = side.In(1, transpose_a ? Shape{k, m} : Shape{m, k});
          const auto b = side.In(2, transpose_b ? Shape{n, k} : Shape{k, n});
          const Shape shape{m, n};
          const auto c = accumulate ? (wide ? side.InSum(3, shape) : side.In(3, shape))
                                    : (wide ? side.OutSum(shape) : side.Out(shape));
          side.dense().MatMul(side.stream(), {a.view(), b.view(), c.view(), transpose_a, transpose_b, accumulate});
          return {{"c", side.Read(c)}};
        });
      }
    }
  }
}

TEST(DenseGpu, MatMulPlusAnotherTensor) {
  const int64_t sizes[][3] = {{1, 1, 1}, {5, 7, 3}, {130, 257, 65}, {8192, 256, 64}, {4, 6, 0}};
  for (const DType dtype : kGpuTypes) {
    for (const auto& [m, n, k] : sizes) {
      for (const bool wide : {false, true}) {
        SCOPED_TRACE(fmt::format("[{},{},{}] wide {}", m, n, k, wide));
        ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
          const Shape shape{m, n};
          const auto a = side.In(1, {m, k}), b = side.In(2, {k, n});
          const auto add = wide ? side.InSum(3, shape) : side.In(3, shape);
          const auto c = wide ? side.OutSum(shape) : side.Out(shape);
          side.dense().MatMul(side.stream(), {.a = a.view(), .b = b.view(), .c = c.view(), .add = add.view()});
          return {{"c", side.Read(c)}};
        });
      }
    }
  }
}

// As on the CPU, a row's bits do not depend on its company.
TEST(DenseGpu, RowsOfAProductStandAlone) {
  for (const DType dtype : kGpuTypes) {
    for (const bool transpose_b : {false, true}) {
      const Side side = GpuSide(dtype);
      const int64_t m = 1000, n = 256, k = 384;
      const auto a = side.In(1, {m, k}), b = side.In(2, transpose_b ? Shape{n, k} : Shape{k, n});
      const auto residual = side.In(3, {m, n});
      for (const Tensor& add : {Tensor(), residual.view()}) {
        const auto c = side.Out({m, n});
        side.dense().MatMul(side.stream(),
                            {.a = a.view(), .b = b.view(), .c = c.view(), .transpose_b = transpose_b, .add = add});
        const std::vector<double> all = side.Read(c);
        for (const auto& [begin, rows] : {std::pair<int64_t, int64_t>{0, 64}, {128, 512}, {7, 1}, {64, 130}}) {
          const auto part = side.Out({rows, n});
          side.dense().MatMul(side.stream(), {.a = a.view().Rows(begin, rows),
                                              .b = b.view(),
                                              .c = part.view(),
                                              .transpose_b = transpose_b,
                                              .add = add ? add.Rows(begin, rows) : Tensor()});
          EXPECT_TRUE(BitEqual(fmt::format("{} rows from {} on, added {}", rows, begin, bool(add)), side.Read(part),
                               {all.begin() + begin * n, all.begin() + (begin + rows) * n}));
        }
      }
    }
  }
}

TEST(DenseGpu, RmsNorm) {
  for (const DType dtype : kGpuTypes) {
    for (const int64_t width : {1, 5, 64, 128, 200, 300, 768, 2048, 5000}) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(fmt::format("width {} accumulate {}", width, accumulate));
        ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
          const Shape shape{37, 3, width};
          const auto x = side.In(1, shape), weight = side.In(2, {width}), d_y = side.In(3, shape);
          const auto y = side.Out(shape), d_x = accumulate ? side.In(4, shape) : side.Out(shape);
          const auto d_weight = side.InSum(5, {width});
          const RmsNormArgs args{x.view(), weight.view(), 1e-2, y.view()};
          side.dense().RmsNorm(side.stream(), args);
          side.dense().RmsNormBackward(side.stream(), args, {d_y.view(), d_x.view(), d_weight.view(), accumulate});
          return {{"y", side.Read(y)}, {"d_x", side.Read(d_x)}, {"d_weight", side.Read(d_weight)}};
        });
      }
    }
  }
}

TEST(DenseGpu, RmsNormOfManyRowsInPlaceOfItsGradient) {
  ExpectSameOnBothSides(DType::kBf16, [](const Side& side) -> Named {
    const Shape shape{20000, 96};
    const auto x = side.In(1, shape), weight = side.In(2, {96}), d = side.In(3, shape), d_weight = side.InSum(4, {96});
    side.dense().RmsNormBackward(side.stream(), {x.view(), weight.view(), 0, {}},
                                 {d.view(), d.view(), d_weight.view(), false});
    return {{"d_x", side.Read(d)}, {"d_weight", side.Read(d_weight)}};
  });
}

TEST(DenseGpu, Rope) {
  std::vector<double> frequency(24);
  for (int i = 0; i < 24; ++i) frequency[i] = std::pow(10000.0, -i / 24.0);
  const std::vector<int32_t> positions = {0, 1, 2, 63, 1000, 65535, 1048575};
  for (const DType dtype : kGpuTypes) {
    for (const auto& [inverse, half] : {std::pair(false, 24), {true, 24}, {true, 5}}) {
      const Shape shape{7, 3, 2 * half};
      ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
        const auto x = side.In(1, shape), y = side.Out(shape);
        const auto f = side.PutF64({frequency.begin(), frequency.begin() + half}, {half});
        const auto p = side.PutInts(positions);
        side.dense().Rope(side.stream(), {x.view(), y.view(), p.view(), f.view(), 1.3, inverse});
        side.dense().Rope(side.stream(), {x.view(), x.view(), p.view(), f.view(), 1, inverse});
        // A gradient in, an activation out.
        const auto wide = side.InSum(2, shape), narrow = side.Out(shape);
        side.dense().Rope(side.stream(), {wide.view(), narrow.view(), p.view(), f.view(), 1, inverse});
        return {{"y", side.Read(y)}, {"in place", side.Read(x)}, {"cast", side.Read(narrow)}};
      });
    }
  }
}

TEST(DenseGpu, SwiGluAndAdd) {
  for (const DType dtype : kGpuTypes) {
    for (const int64_t width : {7, 64, 1000}) {
      ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
        const Shape shape{33, width};
        const auto gate = side.In(1, shape, 2), up = side.In(2, shape), d_y = side.In(3, shape),
                   sum = side.In(4, shape);
        const auto y = side.Out(shape), d_gate = side.Out(shape), d_up = side.Out(shape);
        const SwiGluArgs args{gate.view(), up.view(), y.view()};
        side.dense().SwiGlu(side.stream(), args);
        side.dense().SwiGluBackward(side.stream(), args, {d_y.view(), d_gate.view(), d_up.view()});
        side.dense().Add(side.stream(), up.view(), sum.view());
        // Rows from an odd address on.
        side.dense().Add(side.stream(), up.view().Rows(1, 9), sum.view().Rows(3, 9));
        return {{"y", side.Read(y)}, {"d_gate", side.Read(d_gate)}, {"d_up", side.Read(d_up)}, {"sum", side.Read(sum)}};
      });
    }
  }
}

TEST(DenseGpu, Gate) {
  for (const DType dtype : kGpuTypes) {
    for (const int64_t rows : {1, 500, 3000}) {
      ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
        const Shape shape{rows, 51};
        const auto x = side.In(1, shape), bias = side.In(2, {51}), y = side.Out(shape), d_x = side.Out(shape);
        side.dense().Gate(side.stream(), {x.view(), bias.view(), y.view()});
        const auto given = side.In(3, shape, 0.2), d_y = side.InSum(4, shape), d_bias = side.InSum(5, {51});
        side.dense().GateBackward(side.stream(), {x.view(), bias.view(), given.view()},
                                  {d_y.view(), d_x.view(), d_bias.view()});
        return {{"y", side.Read(y)}, {"d_x", side.Read(d_x)}, {"d_bias", side.Read(d_bias)}};
      });
    }
  }
}

TEST(DenseGpu, Embedding) {
  std::vector<int32_t> tokens(3000);
  std::mt19937_64 random(1);
  for (int32_t& token : tokens) token = random() % 3 ? 17 : random() % 300;  // one token very often
  for (const DType dtype : kGpuTypes) {
    ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
      const auto ids = side.PutInts(tokens);
      const auto weight = side.In(1, {300, 130}), y = side.Out({3000, 130}), d_y = side.In(2, {3000, 130});
      const auto d_weight = side.InSum(3, {300, 130});
      const EmbeddingArgs args{ids.view(), weight.view(), y.view()};
      side.dense().Embedding(side.stream(), args);
      side.dense().EmbeddingBackward(side.stream(), args, {d_y.view(), d_weight.view()});
      return {{"y", side.Read(y)}, {"d_weight", side.Read(d_weight)}};
    });
  }
}

// As many rows as a long sequence has.
TEST(DenseGpu, ManyRows) {
  const int64_t rows = 65536 + 1;
  std::vector<double> frequency(8);
  for (int i = 0; i < 8; ++i) frequency[i] = std::pow(10000.0, -i / 8.0);
  std::vector<int32_t> positions(rows), tokens(rows);
  for (int64_t t = 0; t < rows; ++t) {
    positions[t] = static_cast<int32_t>(t);
    tokens[t] = static_cast<int32_t>(t * 7919 % 301);
  }
  for (const DType dtype : kGpuTypes) {
    ExpectSameOnBothSides(dtype, [&](const Side& side) -> Named {
      DenseOps& ops = side.dense();
      Stream& stream = side.stream();
      const Shape wide{rows, 24}, narrow{rows, 16};
      const auto x = side.In(1, wide), w = side.In(2, {24, 16}), d_y = side.In(3, narrow);
      const auto y = side.Out(narrow), d_x = side.Out(wide), d_w = side.InSum(4, {24, 16});
      ops.MatMul(stream, {x.view(), w.view(), y.view()});
      ops.MatMul(stream, {d_y.view(), w.view(), d_x.view(), false, true});
      ops.MatMul(stream, {x.view(), d_y.view(), d_w.view(), true, false, true});
      Named results = {{"product", side.Read(y)}, {"product's d_x", side.Read(d_x)}, {"product's d_w", side.Read(d_w)}};

      const auto weight = side.In(5, {24}), up = side.In(6, wide), act = side.Out(wide), d_act = side.In(7, wide);
      const auto d_gate = side.Out(wide), d_up = side.Out(wide), d_weight = side.InSum(8, {24});
      ops.SwiGlu(stream, {x.view(), up.view(), act.view()});
      ops.SwiGluBackward(stream, {x.view(), up.view(), act.view()}, {d_act.view(), d_gate.view(), d_up.view()});
      results.insert(results.end(),
                     {{"act", side.Read(act)}, {"d_gate", side.Read(d_gate)}, {"d_up", side.Read(d_up)}});
      const RmsNormArgs norm{x.view(), weight.view(), 1e-5, act.view()};
      ops.RmsNorm(stream, norm);
      ops.RmsNormBackward(stream, norm, {d_act.view(), d_up.view(), d_weight.view()});
      results.insert(results.end(),
                     {{"norm", side.Read(act)}, {"norm's d_x", side.Read(d_up)}, {"d_weight", side.Read(d_weight)}});

      const auto bias = side.In(9, {24}), gates = side.In(10, wide, 0.2), d_gates = side.InSum(11, wide),
                 d_bias = side.InSum(12, {24});
      ops.Gate(stream, {x.view(), bias.view(), act.view()});
      ops.GateBackward(stream, {x.view(), bias.view(), gates.view()}, {d_gates.view(), d_up.view(), d_bias.view()});
      ops.Add(stream, up.view(), d_act.view());
      results.insert(results.end(), {{"gates", side.Read(act)},
                                     {"gates' d_x", side.Read(d_up)},
                                     {"d_bias", side.Read(d_bias)},
                                     {"sum", side.Read(d_act)}});

      const auto at = side.PutInts(positions), ids = side.PutInts(tokens), f = side.PutF64(frequency, {8});
      const auto table = side.In(13, {301, 16}), d_table = side.InSum(14, {301, 16});
      const EmbeddingArgs embedding{ids.view(), table.view(), y.view()};
      ops.Embedding(stream, embedding);
      ops.EmbeddingBackward(stream, embedding, {d_y.view(), d_table.view()});
      results.insert(results.end(), {{"embedding", side.Read(y)}, {"d_embedding", side.Read(d_table)}});
      const Tensor rotated = y.view().Reshape({rows, 1, 16});
      ops.Rope(stream, {d_y.view().Reshape(rotated.shape), rotated, at.view(), f.view(), 1, false});
      results.push_back({"rotated", side.Read(y)});
      return results;
    });
  }
}

TEST(DenseGpu, TokensOutsideTheVocabularyAreErrors) {
  const Side side = GpuSide(DType::kF32);
  for (const int32_t bad : {-1, 10}) {
    const auto ids = side.PutInts({3, 9, bad, 0});
    const auto weight = side.In(1, {10, 8}), y = side.Out({4, 8}), d_weight = side.InSum(2, {10, 8});
    const EmbeddingArgs args{ids.view(), weight.view(), y.view()};
    const std::string expected = fmt::format("token {} at position 2", bad);
    side.dense().Embedding(side.stream(), args);
    ExpectGpuError(ExitCode::kData, expected, [&] { side.stream().Synchronize(); });
    side.dense().EmbeddingBackward(side.stream(), args, {weight.view().Rows(0, 4), d_weight.view()});
    ExpectGpuError(ExitCode::kData, expected, [&] { side.stream().Synchronize(); });
    side.stream().Synchronize();  // said once
  }
}

TEST(DenseGpu, RefusesWhatItDoesNotSupport) {
  const Side side = GpuSide(DType::kF32), narrow = GpuSide(DType::kBf16);
  const auto a = side.In(1, {4, 4}), b = narrow.In(1, {4, 4}), c = side.Out({4, 4});
  ExpectGpuError(ExitCode::kRankFailed, "dense.matmul: b: expected F32 [4,4], found BF16 [4,4]", [&] {
    side.dense().MatMul(side.stream(), {a.view(), b.view(), c.view()});
  });
  const auto host = CpuSide(DType::kF32).PutF64({1, 2}, {2});
  ExpectGpuError(ExitCode::kRankFailed, "expected F32 or BF16, found F64",
                 [&] { side.dense().Add(side.stream(), host.view(), host.view()); });
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) { return longspan::test::RunGpuTests(argc, argv); }
