// Each branch, and their combination, by itself: against a naive evaluation of its header's contract, its backward
// against differences of its forward (fp64), and what a caller may rely on: gradients are added, null ones left alone,
// rows that nobody sees may hold anything, bad arguments are refused by name. (The whole operator against an oracle:
// nsa_*_test.cc.)
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/attention/ops.h"
#include "tests/support/compare.h"
#include "tests/support/derivative.h"
#include "tests/support/machine.h"

namespace longspan::test {
namespace {

using Array = std::vector<double>;
constexpr int64_t kTokens = 90, kHeads = 6, kGroups = 2, kKeyWidth = 6, kValueWidth = 19;
constexpr int64_t kBlock = 8, kStride = 4, kSelectBlock = 16, kSelect = 3;
constexpr double kScale = 0.37;

// Three documents, and the same queries in two segments that lie in memory the other way round.
int64_t DocStartOf(int64_t t) { return t < 32 ? 0 : t < 48 ? 32 : 48; }
std::vector<int32_t> DocStarts() {
  std::vector<int32_t> starts;
  for (int64_t t = 0; t < kTokens; ++t) starts.push_back(DocStartOf(t));
  return starts;
}
const std::vector<Segment> kSegments = {{0, 37, 53}, {37, 53, 0}};

int64_t RowOf(int64_t t) { return t < 37 ? t + 53 : t - 37; }

enum class Kind { kCompressed, kSelected, kWindow };
const Kind kKinds[] = {Kind::kCompressed, Kind::kSelected, Kind::kWindow};

// One branch with its inputs and everything that it writes. Key row r of the sequence lies in row kRows + 8 - r: pages
// of one row, backwards; the buffer's other rows are NaN.
struct BranchCase {
  static constexpr int64_t kRows = kTokens;

  BranchCase(Kind kind, DType dtype) : kind(kind), machine(CpuMachine(dtype)) {
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t g = 0; g < kGroups; ++g) {
        const int64_t own = t / kSelectBlock, first = DocStartOf(t) / kSelectBlock;
        int64_t count = 0;
        for (int64_t block = first; block <= own && count < kSelect; ++block) {
          // Another choice for every query and group.
          if (block == own || (t + g + block) % 3 != 0) chosen[(RowOf(t) * kGroups + g) * kSelect + count++] = block;
        }
      }
    }
    doc_start = Upload(machine, "doc_start", DocStarts(), {kTokens});
    pages = Upload(machine, "pages", Table(), {kRows});
    selected = Upload(machine, "selected", chosen, {kTokens, kGroups, kSelect});
  }

  static int64_t Place(int64_t row) { return kRows + 8 - row; }

  static std::vector<int32_t> Table() {
    std::vector<int32_t> table;
    for (int64_t row = 0; row < kRows; ++row) table.push_back(Place(row));
    return table;
  }

  bool Sees(int64_t t, int64_t g, int64_t row) const {
    const int64_t start = DocStartOf(t);
    if (kind == Kind::kWindow) return row <= t && row > t - 11 && row >= start;
    if (kind == Kind::kCompressed) {
      const int64_t begin = (row - (kBlock / kStride - 1)) * kStride;
      return begin >= start && begin + kBlock - 1 <= t;
    }
    const int32_t* blocks = chosen.data() + (RowOf(t) * kGroups + g) * kSelect;
    return row <= t && std::find(blocks, blocks + kSelect, row / kSelectBlock) != blocks + kSelect;
  }

  // Rows in the buffer's order; NaN where nobody sees the row.
  Array Buffer(const Array& rows, int64_t width) const {
    Array buffer((kRows + 9) * kGroups * width, std::numeric_limits<double>::quiet_NaN());
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t g = 0; g < kGroups; ++g) {
        bool seen = false;
        for (int64_t t = 0; t < kTokens; ++t) seen = seen || Sees(t, g, row);
        for (int64_t c = 0; seen && c < width; ++c) {
          buffer[(Place(row) * kGroups + g) * width + c] = rows[(row * kGroups + g) * width + c];
        }
      }
    }
    return buffer;
  }

  BranchArgs Common() const {
    BranchArgs args;
    args.segments = kSegments;
    args.doc_start = doc_start.view();
    args.q = q.view();
    args.kv = {k.view(), v.view(), {pages.view(), 1}};
    args.scale = kScale;
    args.o = o.view();
    args.lse = lse.view();
    return args;
  }
  CompressedArgs Compressed() const { return {Common(), kBlock, kStride}; }
  SelectedArgs Selected() const { return {Common(), kSelectBlock, selected.view()}; }
  WindowArgs Window() const { return {Common(), 11}; }

  void Forward(const Array& q_rows, const Array& k_rows, const Array& v_rows) {
    q = Upload(machine, "q", q_rows, {kTokens, kHeads, kKeyWidth});
    k = Upload(machine, "k", Buffer(k_rows, kKeyWidth), {kRows + 9, kGroups, kKeyWidth});
    v = Upload(machine, "v", Buffer(v_rows, kValueWidth), {kRows + 9, kGroups, kValueWidth});
    o = OwnedTensor(machine, "o", machine.dtype, {kTokens, kHeads, kValueWidth});
    lse = OwnedTensor(machine, "lse", machine.dtype, {kTokens, kHeads});
    AttentionOps& ops = *machine.ops->attention;
    if (kind == Kind::kCompressed) ops.Compressed(*machine.stream, Compressed());
    if (kind == Kind::kSelected) ops.Selected(*machine.stream, Selected());
    if (kind == Kind::kWindow) ops.Window(*machine.stream, Window());
    machine.stream->Synchronize();
  }

  void Backward(const BranchGradient& gradient) {
    AttentionOps& ops = *machine.ops->attention;
    if (kind == Kind::kCompressed) ops.CompressedBackward(*machine.stream, Compressed(), gradient);
    if (kind == Kind::kSelected) ops.SelectedBackward(*machine.stream, Selected(), gradient);
    if (kind == Kind::kWindow) ops.WindowBackward(*machine.stream, Window(), gradient);
    machine.stream->Synchronize();
  }

  Kind kind;
  Machine machine;
  std::vector<int32_t> chosen = std::vector<int32_t>(kTokens * kGroups * kSelect, -1);
  OwnedTensor doc_start, pages, selected, q, k, v, o, lse;
};

// By the definition, in local rows.
struct Naive {
  Array o = Array(kTokens * kHeads * kValueWidth, 0);
  Array lse = Array(kTokens * kHeads, -std::numeric_limits<double>::infinity());
};

Naive Evaluate(const BranchCase& c, const Array& q, const Array& k, const Array& v) {
  Naive result;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t h = 0; h < kHeads; ++h) {
      const int64_t g = h / (kHeads / kGroups), place = RowOf(t) * kHeads + h;
      double sum = 0;
      Array weights(BranchCase::kRows, 0);
      for (int64_t row = 0; row < BranchCase::kRows; ++row) {
        if (!c.Sees(t, g, row)) continue;
        double score = 0;
        for (int64_t i = 0; i < kKeyWidth; ++i) {
          score += q[place * kKeyWidth + i] * k[(row * kGroups + g) * kKeyWidth + i];
        }
        sum += weights[row] = std::exp(kScale * score);
      }
      if (sum == 0) continue;
      result.lse[place] = std::log(sum);
      for (int64_t row = 0; row < BranchCase::kRows; ++row) {
        for (int64_t i = 0; i < kValueWidth; ++i) {
          result.o[place * kValueWidth + i] += weights[row] / sum * v[(row * kGroups + g) * kValueWidth + i];
        }
      }
    }
  }
  return result;
}

class Branch : public testing::TestWithParam<Kind> {
 protected:
  Array q_ = Normal(kTokens * kHeads * kKeyWidth, 1);
  Array k_ = Normal(BranchCase::kRows * kGroups * kKeyWidth, 2);
  Array v_ = Normal(BranchCase::kRows * kGroups * kValueWidth, 3);
  Array d_o_ = Normal(kTokens * kHeads * kValueWidth, 4);
};

TEST_P(Branch, IsItsDefinition) {
  for (auto [dtype, tolerance] : {std::pair(DType::kF64, 1e-13), std::pair(DType::kF32, 1e-6)}) {
    BranchCase c(GetParam(), dtype);
    c.Forward(q_, k_, v_);
    const Naive expected = Evaluate(c, q_, k_, v_);
    EXPECT_TRUE(RmsClose("o", Download(c.machine, c.o.view()), expected.o, tolerance));
    EXPECT_TRUE(RmsClose("lse", Download(c.machine, c.lse.view()), expected.lse, tolerance));
  }
}

TEST_P(Branch, BackwardIsTheDerivative) {
  BranchCase c(GetParam(), DType::kF64);
  c.Forward(q_, k_, v_);
  const int64_t k_size = (BranchCase::kRows + 9) * kGroups * kKeyWidth;
  const int64_t v_size = (BranchCase::kRows + 9) * kGroups * kValueWidth;
  // Gradients are added to what is there.
  OwnedTensor d_o = Upload(c.machine, "d_o", d_o_, {kTokens, kHeads, kValueWidth});
  OwnedTensor d_q = Upload(c.machine, "d_q", Array(q_.size(), 5), {kTokens, kHeads, kKeyWidth});
  OwnedTensor d_k = Upload(c.machine, "d_k", Array(k_size, 5), {BranchCase::kRows + 9, kGroups, kKeyWidth});
  OwnedTensor d_v = Upload(c.machine, "d_v", Array(v_size, 5), {BranchCase::kRows + 9, kGroups, kValueWidth});
  c.Backward({d_o.view(), d_q.view(), d_k.view(), d_v.view()});

  const auto rows = [&](const OwnedTensor& gradient, int64_t width) {
    const Array buffer = Download(c.machine, gradient.view());
    Array sequence;
    for (int64_t row = 0; row < BranchCase::kRows; ++row) {
      for (int64_t i = 0; i < kGroups * width; ++i) {
        sequence.push_back(buffer[BranchCase::Place(row) * kGroups * width + i] - 5);
      }
    }
    return sequence;
  };
  Array d_q_rows = Download(c.machine, d_q.view());
  for (double& x : d_q_rows) x -= 5;
  ExpectGradient("d_q", q_, d_q_rows, [&](const Array& q) { return Dot(Evaluate(c, q, k_, v_).o, d_o_); });
  ExpectGradient("d_k", k_, rows(d_k, kKeyWidth), [&](const Array& k) { return Dot(Evaluate(c, q_, k, v_).o, d_o_); });
  ExpectGradient("d_v", v_, rows(d_v, kValueWidth),
                 [&](const Array& v) { return Dot(Evaluate(c, q_, k_, v).o, d_o_); });

  // Or d_q is overwritten.
  OwnedTensor over = Upload(c.machine, "d_q", Array(q_.size(), 7), {kTokens, kHeads, kKeyWidth});
  c.Backward({d_o.view(), over.view(), {}, {}, {}, true});
  EXPECT_TRUE(RmsClose("d_q", Download(c.machine, over.view()), d_q_rows, 1e-13));

  // Wanting only one of them changes nothing about it.
  OwnedTensor only = Upload(c.machine, "d_v", Array(v_size, 5), {BranchCase::kRows + 9, kGroups, kValueWidth});
  c.Backward({d_o.view(), {}, {}, only.view()});
  EXPECT_TRUE(BitEqual("d_v", Download(c.machine, only.view()), Download(c.machine, d_v.view())));
}

// Bit by bit, since nothing is rounded on the way: the gate of a row multiplies its d_o.
TEST_P(Branch, BackwardOfAGatedOutput) {
  BranchCase c(GetParam(), DType::kF64);
  c.Forward(q_, k_, v_);
  const Shape shape = {kTokens, kHeads, kValueWidth}, gate_shape = {kTokens, kHeads, 3};
  Array gates(gate_shape.count());
  for (size_t i = 0; i < gates.size(); ++i) gates[i] = static_cast<double>(i % 7) / 6;
  const int branch = 1;
  Array product = d_o_;
  for (size_t i = 0; i < product.size(); ++i) product[i] *= gates[i / kValueWidth * 3 + branch];
  const OwnedTensor gate = Upload(c.machine, "gates", gates, gate_shape),
                    d_gates(c.machine, "d_gates", DType::kF64, gate_shape);
  const auto backward = [&](const Array& d_o, const BranchGate& of) {
    const OwnedTensor given = Upload(c.machine, "d_o", d_o, shape);
    std::vector<OwnedTensor> sums;
    for (const Tensor& x : {c.q.view(), c.k.view(), c.v.view()}) {
      sums.push_back(Upload(c.machine, "gradient", Array(x.size(), 0), x.shape));
    }
    c.Backward({given.view(), sums[0].view(), sums[1].view(), sums[2].view(), of});
    std::vector<Array> found;
    for (const OwnedTensor& x : sums) found.push_back(Download(c.machine, x.view()));
    return found;
  };
  const std::vector<Array> expected = backward(product, {});
  const std::vector<Array> found = backward(d_o_, {gate.view(), d_gates.view(), branch});
  for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(BitEqual(std::to_string(i), found[i], expected[i]));
}

TEST_P(Branch, BitsDoNotDependOnThreads) {
  const int threads = omp_get_max_threads();
  std::vector<Array> first;
  for (int count : {1, 2, 5}) {
    omp_set_num_threads(count);
    BranchCase c(GetParam(), DType::kF32);
    c.Forward(q_, k_, v_);
    OwnedTensor d_o = Upload(c.machine, "d_o", d_o_, {kTokens, kHeads, kValueWidth});
    OwnedTensor d_q = Upload(c.machine, "d_q", Array(q_.size(), 0), {kTokens, kHeads, kKeyWidth});
    OwnedTensor d_k = Upload(c.machine, "d_k", Array(c.k.view().size(), 0), c.k.view().shape);
    OwnedTensor d_v = Upload(c.machine, "d_v", Array(c.v.view().size(), 0), c.v.view().shape);
    c.Backward({d_o.view(), d_q.view(), d_k.view(), d_v.view()});
    std::vector<Array> found;
    for (const OwnedTensor* x : {&c.o, &c.lse, &d_q, &d_k, &d_v}) found.push_back(Download(c.machine, x->view()));
    if (first.empty()) first = found;
    for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(BitEqual(std::to_string(i), found[i], first[i]));
  }
  omp_set_num_threads(threads);
}

TEST_P(Branch, RefusesByName) {
  BranchCase c(GetParam(), DType::kF32);
  c.Forward(q_, k_, v_);
  const auto message = [&] {
    try {
      AttentionOps& ops = *c.machine.ops->attention;
      if (c.kind == Kind::kCompressed) ops.Compressed(*c.machine.stream, c.Compressed());
      if (c.kind == Kind::kSelected) ops.Selected(*c.machine.stream, c.Selected());
      if (c.kind == Kind::kWindow) ops.Window(*c.machine.stream, c.Window());
      c.machine.stream->Synchronize();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message(), "accepted");
  c.lse = OwnedTensor(c.machine, "lse", DType::kF32, {kTokens, kHeads + 1});
  EXPECT_NE(message().find("lse: expected F32 [90,6], found F32 [90,7]"), std::string::npos) << message();
  c.lse = OwnedTensor(c.machine, "lse", DType::kF32, {kTokens, kHeads});
  std::vector<int32_t> table = BranchCase::Table();
  table[c.kind == Kind::kCompressed ? 1 : 0] = -1;
  c.pages = Upload(c.machine, "pages", table, {BranchCase::kRows});
  EXPECT_NE(message().find("of the sequence is needed, but is not in the buffer"), std::string::npos) << message();
  c.pages = Upload(c.machine, "pages", BranchCase::Table(), {BranchCase::kRows});
  if (c.kind == Kind::kSelected) return;  // reads no document starts
  std::vector<int32_t> starts = DocStarts();
  starts[c.kind == Kind::kWindow ? 89 : 5] = c.kind == Kind::kWindow ? 96 : -64;
  c.doc_start = Upload(c.machine, "doc_start", starts, {kTokens});
  EXPECT_NE(message().find("a query sees key rows ["), std::string::npos) << message();
}

INSTANTIATE_TEST_SUITE_P(Kinds, Branch, testing::ValuesIn(kKinds));

TEST(Combination, IsTheGatedSumAndItsBackwardTheGates) {
  const Machine machine = CpuMachine(DType::kF64);
  const Shape shape = {9, 2, 5}, gate_shape = {9, 2, 3};
  const Array d_o = Normal(90, 9);
  std::vector<Array> inputs = {Normal(54, 5), Normal(90, 6), Normal(90, 7), Normal(90, 8)};
  const auto evaluate = [](const std::vector<Array>& in) {
    Array o(90, 0);
    for (size_t i = 0; i < 90; ++i) {
      for (size_t b = 0; b < 3; ++b) o[i] += in[0][i / 5 * 3 + b] * in[b + 1][i];
    }
    return o;
  };
  std::vector<OwnedTensor> in;
  for (size_t i = 0; i < 4; ++i) {
    in.push_back(Upload(machine, "input", inputs[i], i == 0 ? gate_shape : shape));
  }
  const OwnedTensor o(machine, "o", DType::kF64, shape), d_o_tensor = Upload(machine, "d_o", d_o, shape),
                                                         d_gates(machine, "d_gates", DType::kF64, gate_shape);
  const CombineArgs args{in[0].view(), in[1].view(), in[2].view(), in[3].view(), o.view()};
  machine.ops->attention->Combine(*machine.stream, args);
  machine.ops->attention->CombineBackward(*machine.stream, args, {d_o_tensor.view(), d_gates.view()});
  machine.stream->Synchronize();
  EXPECT_TRUE(RmsClose("o", Download(machine, o.view()), evaluate(inputs), 1e-14));
  ExpectGradient("gates", inputs[0], Download(machine, d_gates.view()), [&](const Array& x) {
    std::vector<Array> changed = inputs;
    changed[0] = x;
    return Dot(evaluate(changed), d_o);
  });
}

TEST(Store, PutsRowsWhereThePagesSay) {
  const Machine machine = CpuMachine(DType::kF64);
  const Array x = Normal(10 * 2 * 3, 31);
  const OwnedTensor from = Upload(machine, "x", x, {10, 2, 3}), to = Upload(machine, "y", Array(72, -7), {12, 2, 3});
  const auto store = [&](const std::vector<Segment>& segments, const std::vector<int32_t>& table) {
    const OwnedTensor pages = Upload(machine, "table", table, {static_cast<int64_t>(table.size())});
    machine.ops->attention->Store(*machine.stream, {segments, from.view(), to.view(), {pages.view(), 4}});
    machine.stream->Synchronize();
  };
  store({{5, 6, 2}, {1, 1, 9}}, {2, 1, 0});
  Array expected(72, -7);
  const auto put = [&](int64_t position, int64_t row) {
    const int64_t place = std::array{2, 1, 0}[position / 4] * 4 + position % 4;
    std::copy_n(x.begin() + row * 6, 6, expected.begin() + place * 6);
  };
  for (int64_t i = 0; i < 6; ++i) put(5 + i, 2 + i);
  put(1, 9);
  EXPECT_TRUE(BitEqual("y", Download(machine, to.view()), expected));
  EXPECT_THROW(store({{5, 6, 2}}, {2, 1, -1}), Error);  // a page that is not there
  EXPECT_THROW(store({{5, 6, 2}}, {2, 1, 3}), Error);   // behind the buffer
  EXPECT_THROW(store({{5, 6, 2}}, {2, 1}), Error);      // behind the table
  EXPECT_THROW(store({{5, 6, 5}}, {2, 1, 0}), Error);   // rows that x does not have
}

}  // namespace
}  // namespace longspan::test
