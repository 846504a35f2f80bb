// Forward of the branches and the combination on a GPU against the CPU reference in F64, which gets the inputs as the
// GPU's type rounds them. Outputs start as NaN, and so do key rows that nobody may read; every run is made twice and
// must give the same bits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/attention_gpu.h"
#include "kernels/visibility_cpu.h"
#include "tests/support/compare.h"
#include "tests/support/gpu_values.h"
#include "tests/support/nsa_case.h"

namespace longspan::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

AttentionOps& GpuOps() {
  static const std::unique_ptr<AttentionOps> ops = MakeGpuAttention();
  return *ops;
}

struct BranchCase {
  DType dtype = DType::kBf16;
  int64_t tokens = 1;  // of the sequence
  int64_t heads = 1, groups = 1, key_width = 64, value_width = 64;
  NsaConfig nsa = {};
  std::vector<int32_t> doc_start = {};
  std::vector<Segment> segments = {};  // empty = the whole sequence
  int64_t page_rows = 0;               // of key rows (tokens or compressed tokens); 0 = one page, in order
  uint64_t seed = 1;
};

// Host inputs of one branch, from the seed.
struct Inputs {
  std::vector<Segment> segments;
  int64_t query_rows = 0;
  std::vector<double> q, k, v;
  std::vector<int32_t> table;
  int64_t page_rows = 0, buffer_rows = 0;
  std::vector<int32_t> selected;
};

// `key_rows` rows, of which the first `unseen` are nobody's.
Inputs MakeInputs(const BranchCase& c, int64_t key_rows, int64_t unseen) {
  std::mt19937_64 random(c.seed);
  std::normal_distribution<double> normal;
  Inputs in;
  in.segments = c.segments.empty() ? std::vector<Segment>{{0, c.tokens, 0}} : c.segments;
  // A row that no segment holds, at the end.
  for (const Segment& segment : in.segments) in.query_rows = std::max(in.query_rows, segment.row + segment.length + 1);
  const auto normals = [&](int64_t count) {
    std::vector<double> values(count);
    for (double& x : values) x = normal(random);
    return Rounded(std::move(values), c.dtype);
  };
  in.q = normals(in.query_rows * c.heads * c.key_width);

  in.page_rows = c.page_rows == 0 ? key_rows : c.page_rows;
  const int64_t pages = (key_rows + in.page_rows - 1) / in.page_rows;
  const int64_t slots = c.page_rows == 0 ? pages : pages + 3;
  std::vector<int32_t> order(slots);
  std::iota(order.begin(), order.end(), 0);
  if (c.page_rows != 0) std::shuffle(order.begin(), order.end(), random);
  in.table.assign(order.begin(), order.begin() + pages);
  in.buffer_rows = slots * in.page_rows;
  const auto placed = [&](int64_t width) {
    const int64_t row_size = c.groups * width;
    std::vector<double> values(in.buffer_rows * row_size, kNan);
    const std::vector<double> rows = normals(key_rows * row_size);
    for (int64_t row = unseen; row < key_rows; ++row) {
      const int64_t place = in.table[row / in.page_rows] * in.page_rows + row % in.page_rows;
      std::copy_n(rows.begin() + row * row_size, row_size, values.begin() + place * row_size);
    }
    return values;
  };
  in.k = placed(c.key_width);
  in.v = placed(c.value_width);

  // Some of the visible blocks, for some queries none.
  const int64_t b = c.nsa.select_block, n = c.nsa.select;
  in.selected.assign(in.query_rows * c.groups * n, -1);
  for (const Segment& segment : in.segments) {
    for (int64_t i = 0; i < segment.length; ++i) {
      const int64_t t = segment.begin + i;
      const int64_t first = (c.doc_start.empty() ? 0 : c.doc_start[t]) / b, own = t / b;
      for (int64_t group = 0; group < c.groups; ++group) {
        std::vector<int32_t> blocks(own - first + 1);
        std::iota(blocks.begin(), blocks.end(), static_cast<int32_t>(first));
        const int64_t count = random() % 8 == 0 ? static_cast<int64_t>(random() % (n + 1)) : n;
        std::vector<int32_t> chosen;
        std::sample(blocks.begin(), blocks.end() - 1, std::back_inserter(chosen), std::max<int64_t>(0, count - 1),
                    random);
        if (count > 0) chosen.push_back(static_cast<int32_t>(own));
        std::copy(chosen.begin(), chosen.end(), in.selected.begin() + ((segment.row + i) * c.groups + group) * n);
      }
    }
  }
  return in;
}

// The arguments of one run and the memory behind them.
struct Run {
  OwnedTensor doc_start, q, k, v, table, selected, o, lse;
  BranchArgs args;
};

Run MakeRun(const Machine& machine, const BranchCase& c, const Inputs& in) {
  const bool gpu = machine.device->kind() == DeviceKind::kGpu;
  const auto upload = [&](const char* name, const std::vector<double>& values, const Shape& shape) {
    return gpu ? UploadValues(machine, name, values, shape) : Upload(machine, name, values, shape);
  };
  Run run;
  if (!c.doc_start.empty()) run.doc_start = Upload(machine, "doc_start", c.doc_start, {c.tokens});
  run.q = upload("q", in.q, {in.query_rows, c.heads, c.key_width});
  run.k = upload("k", in.k, {in.buffer_rows, c.groups, c.key_width});
  run.v = upload("v", in.v, {in.buffer_rows, c.groups, c.value_width});
  run.table = Upload(machine, "table", in.table, {std::ssize(in.table)});
  run.selected = Upload(machine, "selected", in.selected, {in.query_rows, c.groups, c.nsa.select});
  run.o = OwnedTensor(machine, "o", machine.dtype, {in.query_rows, c.heads, c.value_width});
  run.lse = OwnedTensor(machine, "lse", gpu ? DType::kF32 : machine.dtype, {in.query_rows, c.heads});
  run.args.segments = in.segments;
  run.args.doc_start = run.doc_start.view();
  run.args.q = run.q.view();
  run.args.kv = {run.k.view(), run.v.view(), {run.table.view(), in.page_rows}};
  run.args.scale = 1 / std::sqrt(static_cast<double>(c.key_width));
  run.args.o = run.o.view();
  run.args.lse = run.lse.view();
  return run;
}

void Launch(Branch branch, AttentionOps& ops, Stream& stream, const BranchCase& c, const Run& run) {
  if (branch == kCmp) ops.Compressed(stream, {run.args, c.nsa.block, c.nsa.stride});
  if (branch == kSlc) ops.Selected(stream, {run.args, c.nsa.select_block, run.selected.view()});
  if (branch == kWin) ops.Window(stream, {run.args, c.nsa.window});
}

struct Results {
  std::vector<double> o, lse;
};

Results RunOn(Branch branch, AttentionOps& ops, const Machine& machine, const BranchCase& c, const Inputs& in) {
  const Run run = MakeRun(machine, c, in);
  Launch(branch, ops, *machine.stream, c, run);
  machine.stream->Synchronize();
  return {DownloadValues(machine, run.o.view()), DownloadValues(machine, run.lse.view())};
}

// The rows of the segments, [query_rows, width].
std::vector<double> RowsOf(const std::vector<double>& values, const Inputs& in) {
  const int64_t width = std::ssize(values) / in.query_rows;
  std::vector<double> rows;
  for (const Segment& segment : in.segments) {
    const auto first = values.begin() + segment.row * width;
    rows.insert(rows.end(), first, first + segment.length * width);
  }
  return rows;
}

int64_t KeyRows(Branch branch, const BranchCase& c) {
  return branch == kCmp ? std::max<int64_t>(1, c.tokens / c.nsa.stride) : c.tokens;
}

void ExpectSame(const BranchCase& c) {
  const Machine gpu = GpuMachine(c.dtype);
  for (const Branch branch : {kCmp, kSlc, kWin}) {
    SCOPED_TRACE(fmt::format("{} {} S={} H={} G={} K={} V={} l={} d={} b={} n={} w={} pages of {}",
                             kBranchNames[branch], DTypeName(c.dtype), c.tokens, c.heads, c.groups, c.key_width,
                             c.value_width, c.nsa.block, c.nsa.stride, c.nsa.select_block, c.nsa.select, c.nsa.window,
                             c.page_rows));
    const Inputs in = MakeInputs(c, KeyRows(branch, c), branch == kCmp ? c.nsa.lead() : 0);
    const Machine cpu = CpuMachine(DType::kF64);
    const Results expected = RunOn(branch, *cpu.ops->attention, cpu, c, in);
    const Results found = RunOn(branch, GpuOps(), gpu, c, in);
    EXPECT_TRUE(RmsClose("o", RowsOf(found.o, in), RowsOf(expected.o, in), c.dtype == DType::kF32 ? 1e-5 : 0.005));
    EXPECT_TRUE(RmsClose("lse", RowsOf(found.lse, in), RowsOf(expected.lse, in), 1e-5));
    // A row that no segment holds stays as it was.
    for (int64_t i = 0; i < c.heads * c.value_width; ++i) EXPECT_TRUE(std::isnan(found.o[found.o.size() - 1 - i]));

    const Results again = RunOn(branch, GpuOps(), gpu, c, in);
    EXPECT_TRUE(BitEqual("o", again.o, found.o));
    EXPECT_TRUE(BitEqual("lse", again.lse, found.lse));
  }
}

TEST(BranchGpu, Widths) {
  for (const auto& [key_width, value_width] : {std::pair(64, 64), std::pair(128, 128), std::pair(192, 128)}) {
    ExpectSame({.tokens = 1100, .heads = 32, .groups = 2, .key_width = key_width, .value_width = value_width});
  }
}

TEST(BranchGpu, PaddedWidths) {
  for (const auto& [key_width, value_width] :
       {std::pair(16, 16), std::pair(8, 24), std::pair(96, 40), std::pair(136, 128), std::pair(256, 256)}) {
    ExpectSame({.tokens = 333, .heads = 8, .groups = 2, .key_width = key_width, .value_width = value_width});
  }
}

TEST(BranchGpu, GroupSizes) {
  for (const int64_t group_heads : {1, 2, 3, 4, 8, 16, 20, 64}) {
    ExpectSame({.tokens = 700, .heads = 2 * group_heads, .groups = 2, .seed = 7});
  }
}

TEST(BranchGpu, Float) {
  for (const int64_t group_heads : {1, 2, 4, 8, 16}) {
    ExpectSame({.dtype = DType::kF32,
                .tokens = 300,
                .heads = 2 * group_heads,
                .groups = 2,
                .key_width = 18,
                .value_width = 33,
                .nsa = {.window = 100}});
  }
  ExpectSame({.dtype = DType::kF32, .tokens = 600, .heads = 4, .groups = 2, .key_width = 192, .value_width = 128});
}

// Documents, the two segments of head-tail, shuffled pages; sizes that no tile divides.
TEST(BranchGpu, Placement) {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    BranchCase c{.dtype = dtype, .tokens = 2048, .heads = 8, .groups = 2};
    c.nsa.window = 300;
    c.doc_start = PackDocuments({70, 1, 900, 64, 2000}, 64);
    c.doc_start.resize(2048);
    c.segments = {{256, 256, 256}, {1536, 256, 0}};
    for (const int64_t page_rows : {0, 64, 16, 48, 128}) {
      c.page_rows = page_rows;
      ExpectSame(c);
    }
  }
}

TEST(BranchGpu, BlockSizes) {
  const std::vector<NsaConfig> configs = {
      {.block = 8, .stride = 4, .select_block = 8, .select = 5, .window = 1},
      {.block = 12, .stride = 4, .select_block = 20, .select = 40, .window = 17},
      {.block = 3, .stride = 3, .select_block = 27, .select = 2, .init = 0, .window = 64},
      {.block = 32, .stride = 16, .select_block = 128, .select = 4, .window = 100000},
  };
  for (const NsaConfig& nsa : configs) {
    for (const int64_t tokens : {1, 7, 65, 499}) {
      ExpectSame({.tokens = tokens, .heads = 12, .groups = 3, .key_width = 32, .value_width = 64, .nsa = nsa});
    }
  }
}

TEST(BranchGpu, MoreThanSixteenSegmentsAreRefused) {
  BranchCase c{.tokens = 64, .heads = 2};
  for (int64_t i = 0; i < 17; ++i) c.segments.push_back({i, 1, i});
  const Inputs in = MakeInputs(c, 64, 0);
  EXPECT_THROW(RunOn(kWin, GpuOps(), GpuMachine(c.dtype), c, in), Error);
}

TEST(BranchGpu, OddWidthsAreRefusedInBf16) {
  const BranchCase c{.tokens = 64, .heads = 2, .key_width = 18};
  const Inputs in = MakeInputs(c, 64, 0);
  EXPECT_THROW(RunOn(kWin, GpuOps(), GpuMachine(c.dtype), c, in), Error);
}

// What query t, head h gets, in double, straight from the definition.
std::vector<double> OneRow(const BranchCase& c, const Inputs& in, const Visibility& visible, int64_t t, int64_t h) {
  const int64_t group = h / (c.heads / c.groups);
  std::vector<Span> spans;
  visible({t, t}, group, &spans);
  std::vector<double> o(c.value_width);
  double sum = 0;
  for (const Span& span : spans) {
    for (int64_t row = span.begin; row < span.end; ++row) {
      const double* const q = in.q.data() + (t * c.heads + h) * c.key_width;
      const double* const k = in.k.data() + (row * c.groups + group) * c.key_width;
      const double* const v = in.v.data() + (row * c.groups + group) * c.value_width;
      // Scores of normal values are a few units: no maximum needed.
      const double p = std::exp(std::inner_product(q, q + c.key_width, k, 0.0) / std::sqrt(c.key_width));
      sum += p;
      for (int64_t i = 0; i < c.value_width; ++i) o[i] += p * v[i];
    }
  }
  for (double& x : o) x = sum == 0 ? 0 : x / sum;
  return o;
}

TEST(BranchGpu, SampledRowsOfALongSequence) {
  const BranchCase c{.tokens = 65536, .heads = 16, .groups = 1, .key_width = 128, .value_width = 128};
  const Machine gpu = GpuMachine(c.dtype);
  for (const Branch branch : {kCmp, kSlc, kWin}) {
    SCOPED_TRACE(kBranchNames[branch]);
    const Inputs in = MakeInputs(c, KeyRows(branch, c), branch == kCmp ? c.nsa.lead() : 0);
    const Results found = RunOn(branch, GpuOps(), gpu, c, in);
    SelectedArgs selected;
    selected.select_block = c.nsa.select_block;
    selected.selected = HostView(in.selected.data(), {c.tokens, c.groups, c.nsa.select});
    WindowArgs window;
    window.window = c.nsa.window;
    const Visibility visible = branch == kCmp   ? SeenCompressed(Tensor(), c.nsa.block, c.nsa.stride)
                               : branch == kSlc ? SeenSelected(selected)
                                                : SeenWindow(window);
    std::vector<double> sampled, expected;
    for (int64_t t = 30; t < c.tokens; t += 2047) {
      const int64_t h = t % c.heads;
      const std::vector<double> row = OneRow(c, in, visible, t, h);
      expected.insert(expected.end(), row.begin(), row.end());
      const auto first = found.o.begin() + (t * c.heads + h) * c.value_width;
      sampled.insert(sampled.end(), first, first + c.value_width);
    }
    EXPECT_TRUE(RmsClose("o", sampled, expected, 0.005));
    EXPECT_TRUE(AllFinite("lse", {found.lse.begin() + 31 * c.heads, found.lse.end() - c.heads}));
  }
}

TEST(CombineGpu, ForwardAndBackward) {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const int64_t width : {1, 17, 64, 128, 136}) {
      SCOPED_TRACE(fmt::format("{} V={}", DTypeName(dtype), width));
      const int64_t tokens = 37, heads = 5;
      const Shape shape = {tokens, heads, width}, gate_shape = {tokens, heads, 3};
      const double tolerance = dtype == DType::kF32 ? 1e-5 : 0.005;
      std::mt19937_64 random(3);
      std::normal_distribution<double> normal;
      const auto normals = [&](const Shape& dims) {
        std::vector<double> values(dims.count());
        for (double& x : values) x = normal(random);
        return Rounded(values, dtype);
      };
      const std::vector<double> gates = normals(gate_shape), d_o = normals(shape);
      const std::array<std::vector<double>, 3> o = {normals(shape), normals(shape), normals(shape)};

      // o, d_gates, d_o of the branches.
      const auto run = [&](const Machine& machine, AttentionOps& ops) {
        const bool on_gpu = machine.device->kind() == DeviceKind::kGpu;
        const auto upload = [&](const std::vector<double>& values, const Shape& dims) {
          return on_gpu ? UploadValues(machine, "in", values, dims) : Upload(machine, "in", values, dims);
        };
        const OwnedTensor in_gates = upload(gates, gate_shape), in_d_o = upload(d_o, shape);
        const OwnedTensor in_o[3] = {upload(o[0], shape), upload(o[1], shape), upload(o[2], shape)};
        const OwnedTensor out(machine, "o", machine.dtype, shape);
        const OwnedTensor d_gates(machine, "d_gates", on_gpu ? DType::kF32 : machine.dtype, gate_shape);
        const OwnedTensor d_cmp(machine, "d", machine.dtype, shape), d_slc(machine, "d", machine.dtype, shape);
        const OwnedTensor d_win(machine, "d", machine.dtype, shape);
        const CombineArgs args{in_gates.view(), in_o[0].view(), in_o[1].view(), in_o[2].view(), out.view()};
        ops.Combine(*machine.stream, args);
        ops.CombineBackward(*machine.stream, args,
                            {in_d_o.view(), d_gates.view(), d_cmp.view(), d_slc.view(), d_win.view()});
        machine.stream->Synchronize();
        std::vector<std::vector<double>> results;
        for (const OwnedTensor* tensor : {&out, &d_gates, &d_cmp, &d_slc, &d_win}) {
          results.push_back(DownloadValues(machine, tensor->view()));
        }
        return results;
      };
      const Machine cpu = CpuMachine(DType::kF64);
      const auto expected = run(cpu, *cpu.ops->attention);
      const auto found = run(GpuMachine(dtype), GpuOps());
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_TRUE(RmsClose(fmt::format("result {}", i), found[i], expected[i], tolerance));
      }
    }
  }
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return longspan::GpuCount() == 0 ? 77 : RUN_ALL_TESTS();
}
