// What the GPU tests of the branches share: a case, its random inputs, and the arguments of a run on either device.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "kernels/attention/gpu/attention.h"
#include "tests/support/gpu_values.h"
#include "tests/support/nsa_case.h"

namespace longspan::test {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

inline AttentionOps& GpuOps() {
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

// 1 to 16 heads a group in every width that is promised and either type, and group sizes that fill no tile.
inline std::vector<BranchCase> GroupSizeCases() {
  std::vector<BranchCase> cases;
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    for (const int64_t group_heads : {1, 2, 4, 8, 16}) {
      for (const auto& [key_width, value_width] : {std::pair(64, 64), std::pair(128, 128), std::pair(192, 128)}) {
        cases.push_back({.dtype = dtype,
                         .tokens = 331,
                         .heads = 2 * group_heads,
                         .groups = 2,
                         .key_width = key_width,
                         .value_width = value_width,
                         .nsa = {.select = 4, .window = 150},
                         .seed = 7});
      }
    }
  }
  for (const int64_t group_heads : {3, 5, 12, 20, 64}) {
    cases.push_back({.tokens = 700, .heads = 2 * group_heads, .groups = 2, .seed = 7});
  }
  return cases;
}

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
inline Inputs MakeInputs(const BranchCase& c, int64_t key_rows, int64_t unseen) {
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
struct BranchRun {
  OwnedTensor doc_start, q, k, v, table, selected, o, lse;
  BranchArgs args;

  // Points args to the tensors.
  void Bind(const std::vector<Segment>& segments, int64_t page_rows) {
    args.segments = segments;
    args.doc_start = doc_start.view();
    args.q = q.view();
    args.kv = {k.view(), v.view(), {table.view(), page_rows}};
    args.scale = 1 / std::sqrt(static_cast<double>(args.q.dim(2)));
    args.o = o.view();
    args.lse = lse.view();
  }
};

inline BranchRun MakeRun(const Machine& machine, const BranchCase& c, const Inputs& in) {
  const bool gpu = machine.device->kind() == DeviceKind::kGpu;
  const auto upload = [&](const char* name, const std::vector<double>& values, const Shape& shape) {
    return gpu ? UploadValues(machine, name, values, shape) : Upload(machine, name, values, shape);
  };
  BranchRun run;
  if (!c.doc_start.empty()) run.doc_start = Upload(machine, "doc_start", c.doc_start, {c.tokens});
  run.q = upload("q", in.q, {in.query_rows, c.heads, c.key_width});
  run.k = upload("k", in.k, {in.buffer_rows, c.groups, c.key_width});
  run.v = upload("v", in.v, {in.buffer_rows, c.groups, c.value_width});
  run.table = Upload(machine, "table", in.table, {std::ssize(in.table)});
  run.selected = Upload(machine, "selected", in.selected, {in.query_rows, c.groups, c.nsa.select});
  run.o = OwnedTensor(machine, "o", machine.dtype, {in.query_rows, c.heads, c.value_width});
  run.lse = OwnedTensor(machine, "lse", gpu ? DType::kF32 : machine.dtype, {in.query_rows, c.heads});
  run.Bind(in.segments, in.page_rows);
  return run;
}

inline void Launch(Branch branch, AttentionOps& ops, Stream& stream, const BranchCase& c, const BranchRun& run) {
  if (branch == kCmp) ops.Compressed(stream, {run.args, c.nsa.block, c.nsa.stride});
  if (branch == kSlc) ops.Selected(stream, {run.args, c.nsa.select_block, run.selected.view()});
  if (branch == kWin) ops.Window(stream, {run.args, c.nsa.window});
}

inline void LaunchBackward(Branch branch, AttentionOps& ops, Stream& stream, const BranchCase& c, const BranchRun& run,
                           const BranchGradient& gradient) {
  if (branch == kCmp) ops.CompressedBackward(stream, {run.args, c.nsa.block, c.nsa.stride}, gradient);
  if (branch == kSlc) ops.SelectedBackward(stream, {run.args, c.nsa.select_block, run.selected.view()}, gradient);
  if (branch == kWin) ops.WindowBackward(stream, {run.args, c.nsa.window}, gradient);
}

// The rows of the segments, [query_rows, width].
inline std::vector<double> RowsOf(const std::vector<double>& values, const Inputs& in) {
  const int64_t width = std::ssize(values) / in.query_rows;
  std::vector<double> rows;
  for (const Segment& segment : in.segments) {
    const auto first = values.begin() + segment.row * width;
    rows.insert(rows.end(), first, first + segment.length * width);
  }
  return rows;
}

inline int64_t KeyRows(Branch branch, const BranchCase& c) {
  return branch == kCmp ? std::max<int64_t>(1, c.tokens / c.nsa.stride) : c.tokens;
}

inline std::string Describe(Branch branch, const BranchCase& c) {
  return fmt::format("{} {} S={} H={} G={} K={} V={} l={} d={} b={} n={} w={} pages of {}", kBranchNames[branch],
                     DTypeName(c.dtype), c.tokens, c.heads, c.groups, c.key_width, c.value_width, c.nsa.block,
                     c.nsa.stride, c.nsa.select_block, c.nsa.select, c.nsa.window, c.page_rows);
}

}  // namespace longspan::test
