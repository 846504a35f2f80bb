// Importance, selection and its hash on a GPU against the CPU reference in F64, which gets the inputs as the GPU's type
// rounds them. A near-tie may fall either way: forced blocks are compared exactly, the others by their sorted scores,
// and every score by the reference's for that block. Equal scores are compared exactly. Every run is made twice and
// must give the same bits; key rows that no query of the call sees are NaN, pages of such rows are nowhere.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/attention/gpu/attention.h"
#include "tests/kernels/attention/choice_check.h"
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

struct SelectCase {
  DType dtype = DType::kBf16;
  int64_t tokens = 1;  // of the sequence
  int64_t heads = 1, groups = 1, width = 64;
  NsaConfig nsa = {};
  std::vector<int32_t> doc_start = {};
  std::vector<Segment> segments = {};  // empty = the whole sequence
  int64_t page_rows = 0;               // of compressed rows; 0 = one page
  uint64_t seed = 1;

  int64_t FirstBlock(int64_t t) const { return (doc_start.empty() ? 0 : doc_start[t]) / nsa.select_block; }
};

// Host inputs in the order of the sequence.
struct Inputs {
  std::vector<double> q;    // [S,H,K]
  std::vector<double> k;    // [rows,G,K]
  std::vector<double> lse;  // [S,H], what float holds
};

int64_t KeyRows(const SelectCase& c) { return std::max<int64_t>(1, c.tokens / c.nsa.stride); }

std::vector<Segment> Whole(const SelectCase& c) { return {{0, c.tokens, 0}}; }

// The key rows that some query of the segments sees.
std::vector<bool> SeenRows(const SelectCase& c, const std::vector<Segment>& segments) {
  std::vector<bool> seen(KeyRows(c));
  for (const Segment& segment : segments) {
    const int64_t last = segment.begin + segment.length - 1,
                  start = c.doc_start.empty() ? 0 : c.doc_start[segment.begin];
    if (segment.length == 0 || last + 1 < c.nsa.block) continue;
    const int64_t begin = (start + c.nsa.stride - 1) / c.nsa.stride + c.nsa.lead();
    const int64_t end = (last + 1 - c.nsa.block) / c.nsa.stride + 1 + c.nsa.lead();
    for (int64_t row = begin; row < end; ++row) seen[row] = true;
  }
  return seen;
}

struct Choice {
  std::vector<int32_t> selected;  // [S,G,n], -2 where no segment has the query
  std::vector<double> scores;     // [S,G,n], NaN there
};

// One run on one machine, with inputs and outputs in the order of the sequence.
Choice RunSelect(AttentionOps& ops, const Machine& machine, const SelectCase& c, const Inputs& in, bool scores = true) {
  const bool gpu = machine.device->kind() == DeviceKind::kGpu;
  const auto upload = [&](const char* name, const std::vector<double>& values, const Shape& shape) {
    return gpu ? UploadValues(machine, name, values, shape) : Upload(machine, name, values, shape);
  };
  const std::vector<Segment> segments = c.segments.empty() ? Whole(c) : c.segments;
  int64_t rows = 0;
  for (const Segment& segment : segments) rows = std::max(rows, segment.row + segment.length);
  const auto local = [&](const std::vector<double>& values, int64_t size) {
    std::vector<double> placed(rows * size, kNan);
    for (const Segment& segment : segments) {
      std::copy_n(values.begin() + segment.begin * size, segment.length * size, placed.begin() + segment.row * size);
    }
    return placed;
  };

  const int64_t key_rows = KeyRows(c), page_rows = c.page_rows == 0 ? key_rows : c.page_rows;
  const int64_t pages = (key_rows + page_rows - 1) / page_rows, slots = pages + 2, row_size = c.groups * c.width;
  std::vector<int32_t> order(slots);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(c.seed + 77);
  if (c.page_rows != 0) std::shuffle(order.begin(), order.end(), random);
  order.resize(pages);
  std::vector<double> keys(slots * page_rows * row_size, kNan);
  const std::vector<bool> seen = SeenRows(c, segments);
  std::vector<int32_t> pages_of(pages, -1);
  for (int64_t row = 0; row < key_rows; ++row) {
    if (!seen[row]) continue;
    pages_of[row / page_rows] = order[row / page_rows];
    const int64_t place = order[row / page_rows] * page_rows + row % page_rows;
    std::copy_n(in.k.begin() + row * row_size, row_size, keys.begin() + place * row_size);
  }

  const OwnedTensor q = upload("q", local(in.q, c.heads * c.width), {rows, c.heads, c.width});
  const OwnedTensor k = upload("k", keys, {slots * page_rows, c.groups, c.width});
  const OwnedTensor table = Upload(machine, "table", pages_of, {pages});
  const Machine exact = {machine.device, machine.stream, machine.ops, gpu ? DType::kF32 : machine.dtype};
  const OwnedTensor lse = Upload(exact, "lse", local(in.lse, c.heads), {rows, c.heads});
  OwnedTensor doc_start;
  if (!c.doc_start.empty()) doc_start = Upload(machine, "doc_start", c.doc_start, {c.tokens});
  const int64_t n = c.nsa.select;
  const OwnedTensor selected =
      Upload(machine, "selected", std::vector<int32_t>(rows * c.groups * n, -2), {rows, c.groups, n});
  const OwnedTensor score(machine, "scores", exact.dtype, {rows, c.groups, n});
  SelectArgs args;
  args.segments = segments;
  args.doc_start = doc_start.view();
  args.q = q.view();
  args.k = k.view();
  args.pages = {table.view(), page_rows};
  args.lse = lse.view();
  args.scale = 1 / std::sqrt(static_cast<double>(c.width));
  args.nsa = c.nsa;
  args.selected = selected.view();
  if (scores) args.scores = score.view();
  ops.Select(*machine.stream, args);
  machine.stream->Synchronize();

  const std::vector<int32_t> chosen = DownloadInts(machine, selected.view());
  const std::vector<double> values = Download(machine, score.view());
  Choice choice = {std::vector<int32_t>(c.tokens * c.groups * n, -2),
                   std::vector<double>(c.tokens * c.groups * n, kNan)};
  for (const Segment& segment : segments) {
    const int64_t size = c.groups * n, count = segment.length * size;
    std::copy_n(chosen.begin() + segment.row * size, count, choice.selected.begin() + segment.begin * size);
    std::copy_n(values.begin() + segment.row * size, count, choice.scores.begin() + segment.begin * size);
  }
  return choice;
}

// lse of the compressed branch, from the CPU.
std::vector<double> LogSums(const SelectCase& c, const Inputs& in) {
  const Machine cpu = CpuMachine(DType::kF64);
  const OwnedTensor q = Upload(cpu, "q", in.q, {c.tokens, c.heads, c.width});
  const OwnedTensor k = Upload(cpu, "k", in.k, {KeyRows(c), c.groups, c.width});
  const OwnedTensor v = Upload(cpu, "v", std::vector<double>(KeyRows(c) * c.groups, 0.0), {KeyRows(c), c.groups, 1});
  const OwnedTensor table = Upload(cpu, "table", std::vector<int32_t>{0}, {1});
  OwnedTensor doc_start;
  if (!c.doc_start.empty()) doc_start = Upload(cpu, "doc_start", c.doc_start, {c.tokens});
  const OwnedTensor o(cpu, "o", DType::kF64, {c.tokens, c.heads, 1}), lse(cpu, "lse", DType::kF64, {c.tokens, c.heads});
  CompressedArgs args;
  args.segments = Whole(c);
  args.doc_start = doc_start.view();
  args.q = q.view();
  args.kv = {k.view(), v.view(), {table.view(), KeyRows(c)}};
  args.scale = 1 / std::sqrt(static_cast<double>(c.width));
  args.o = o.view();
  args.lse = lse.view();
  args.block = c.nsa.block;
  args.stride = c.nsa.stride;
  cpu.ops->attention->Compressed(*cpu.stream, args);
  cpu.stream->Synchronize();
  return Rounded(Download(cpu, lse.view()), DType::kF32);
}

Inputs RandomInputs(const SelectCase& c) {
  std::mt19937_64 random(c.seed);
  std::normal_distribution<double> normal;
  const auto normals = [&](int64_t count) {
    std::vector<double> values(count);
    for (double& x : values) x = normal(random);
    return Rounded(std::move(values), c.dtype);
  };
  Inputs in;
  in.q = normals(c.tokens * c.heads * c.width);
  in.k = normals(KeyRows(c) * c.groups * c.width);
  in.lse = LogSums(c, in);
  return in;
}

std::string Text(const SelectCase& c) {
  return fmt::format("{} S={} H={} G={} K={} l={} d={} b={} n={} init={} local={} pages of {}", DTypeName(c.dtype),
                     c.tokens, c.heads, c.groups, c.width, c.nsa.block, c.nsa.stride, c.nsa.select_block, c.nsa.select,
                     c.nsa.init, c.nsa.local, c.page_rows);
}

// The scores of all visible blocks, [S,G,blocks], from the first of the query's document on.
std::vector<double> AllScores(SelectCase c, const Inputs& in, int64_t blocks) {
  c.nsa.select = blocks;
  c.segments.clear();
  const Machine cpu = CpuMachine(DType::kF64);
  return RunSelect(*cpu.ops->attention, cpu, c, in).scores;
}

void ExpectRightChoice(const SelectCase& c, const Inputs& in, const Choice& choice) {
  const int64_t n = c.nsa.select, blocks = std::max((c.tokens - 1) / c.nsa.select_block + 1, n);
  const std::vector<double> all = AllScores(c, in, blocks);
  ChoiceCheck check(c.nsa);
  for (const Segment& segment : c.segments.empty() ? Whole(c) : c.segments) {
    for (int64_t row = segment.begin * c.groups; row < (segment.begin + segment.length) * c.groups; ++row) {
      const int64_t t = row / c.groups;
      check.Add(t, c.FirstBlock(t), &choice.selected[row * n], &choice.scores[row * n], &all[row * blocks]);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  check.ExpectScores();
}

void ExpectSame(const SelectCase& c) {
  SCOPED_TRACE(Text(c));
  const Inputs in = RandomInputs(c);
  const Machine gpu = GpuMachine(c.dtype);
  const Choice found = RunSelect(GpuOps(), gpu, c, in);
  ExpectRightChoice(c, in, found);
  const Choice again = RunSelect(GpuOps(), gpu, c, in, false);
  EXPECT_TRUE(BitEqual("selected without scores", again.selected, found.selected));
  const Choice third = RunSelect(GpuOps(), gpu, c, in);
  EXPECT_TRUE(BitEqual("selected", third.selected, found.selected));
  EXPECT_TRUE(BitEqual("scores", third.scores, found.scores));
}

TEST(SelectGpu, GroupSizes) {
  for (const int64_t group : {1, 2, 3, 4, 8, 16, 32}) {
    ExpectSame({.tokens = 2500, .heads = 2 * group, .groups = 2, .width = 64});
  }
}

TEST(SelectGpu, Widths) {
  for (const int64_t width : {8, 16, 64, 72, 96, 128, 136, 192}) {
    ExpectSame({.tokens = 1700, .heads = 8, .groups = 2, .width = width});
  }
  for (const int64_t group : {1, 2, 8, 16}) {
    for (const int64_t width : {128, 192}) {
      ExpectSame({.tokens = 1300, .heads = 2 * group, .groups = 2, .width = width});
    }
  }
  // Not for the tensor cores.
  for (const int64_t width : {6, 256}) ExpectSame({.tokens = 1300, .heads = 4, .groups = 2, .width = width});
}

TEST(SelectGpu, F32) {
  for (const int64_t width : {3, 5, 64, 128, 192}) {
    ExpectSame({.dtype = DType::kF32, .tokens = 1500, .heads = 6, .groups = 2, .width = width});
  }
  for (const int64_t group : {1, 2, 4, 8, 16}) {
    ExpectSame({.dtype = DType::kF32, .tokens = 1100, .heads = 2 * group, .groups = 2, .width = 40});
  }
}

TEST(SelectGpu, BlockSizes) {
  for (const NsaConfig& nsa :
       {NsaConfig{.block = 16, .stride = 16, .select_block = 16},
        NsaConfig{.block = 64, .stride = 16, .select_block = 64},
        NsaConfig{.block = 12, .stride = 4, .select_block = 20, .select = 33},
        NsaConfig{.block = 24, .stride = 8, .select_block = 24, .select = 64, .init = 3, .local = 5},
        NsaConfig{.block = 4, .stride = 1, .select_block = 7, .select = 5, .init = 0, .local = 0},
        NsaConfig{.block = 128, .stride = 1, .select_block = 128, .select = 4}, NsaConfig{.select = 3},
        NsaConfig{.select = 1, .init = 0, .local = 1}, NsaConfig{.select_block = 32},
        NsaConfig{.select_block = 128, .select = 8}, NsaConfig{.select_block = 32, .select = 16, .init = 0, .local = 0},
        NsaConfig{.block = 128, .stride = 2, .select_block = 128, .select = 9}}) {
    ExpectSame({.tokens = 1900, .heads = 4, .groups = 2, .nsa = nsa});
    ExpectSame({.tokens = 1900, .heads = 16, .groups = 1, .width = 128, .nsa = nsa});
    ExpectSame({.dtype = DType::kF32, .tokens = 900, .heads = 4, .groups = 2, .width = 10, .nsa = nsa});
  }
}

TEST(SelectGpu, ShortSequences) {
  for (const int64_t tokens : {1, 31, 32, 63, 64, 65, 200, 1023, 1024, 1025}) {
    ExpectSame({.tokens = tokens, .heads = 16, .groups = 1});
  }
}

TEST(SelectGpu, DocumentsSegmentsAndPages) {
  const std::vector<int32_t> doc_start = PackDocuments({700, 64, 5, 1500, 3000}, 64);
  const auto tokens = std::ssize(doc_start);
  ExpectSame({.tokens = tokens, .heads = 16, .groups = 1, .doc_start = doc_start});
  ExpectSame({.tokens = tokens, .heads = 16, .groups = 2, .width = 128, .doc_start = doc_start, .page_rows = 4});
  ExpectSame({.tokens = tokens, .heads = 16, .groups = 2, .page_rows = 7});
  const std::vector<Segment> segments = {{tokens - 1003, 1003, 3}, {64, 777, 1010}};
  ExpectSame(
      {.tokens = tokens, .heads = 8, .groups = 2, .doc_start = doc_start, .segments = segments, .page_rows = 64});
}

// What a query gets does not depend on how the queries are cut or where keys lie.
TEST(SelectGpu, SplitsDoNotMatter) {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    SelectCase c = {.dtype = dtype, .tokens = 3000, .heads = 8, .groups = 2};
    const Inputs in = RandomInputs(c);
    const Machine gpu = GpuMachine(dtype);
    const Choice whole = RunSelect(GpuOps(), gpu, c, in);
    c.segments = {{1001, 1999, 0}, {0, 1001, 2000}};
    c.page_rows = 12;
    const Choice parts = RunSelect(GpuOps(), gpu, c, in);
    EXPECT_TRUE(BitEqual("selected", parts.selected, whole.selected));
    EXPECT_TRUE(BitEqual("scores", parts.scores, whole.scores));
  }
}

// What a rank of several has: two segments of the sequence, with a document's start among them.
TEST(SelectGpu, Halo) {
  std::vector<int32_t> doc_start = PackDocuments({1280, 3000}, 64);
  doc_start.resize(4000);
  for (const int64_t page_rows : {0, 16, 48, 64, 128}) {
    for (const int64_t heads : {5, 16}) {
      ExpectSame({.tokens = 4000,
                  .heads = heads,
                  .width = 128,
                  .doc_start = doc_start,
                  .segments = {{1500, 300, 300}, {2500, 290, 0}},
                  .page_rows = page_rows});
    }
  }
}

// A query's bits depend on no other query of the call and on no place: the whole sequence in one call, and cut in
// pieces of odd lengths, out of order, with keys in other pages.
TEST(SelectGpu, EachQueryByItself) {
  for (const auto& [heads, width] : {std::pair(1, 64), std::pair(3, 192), std::pair(8, 128), std::pair(16, 128)}) {
    for (const int64_t select : {4, 16, 30}) {
      SelectCase c = {.tokens = 3100, .heads = 2 * heads, .groups = 2, .width = width, .nsa = {.select = select}};
      c.doc_start = PackDocuments({300, 1, 2900}, 64);
      c.doc_start.resize(c.tokens);
      SCOPED_TRACE(Text(c));
      const Inputs in = RandomInputs(c);
      const Machine gpu = GpuMachine(c.dtype);
      const Choice whole = RunSelect(GpuOps(), gpu, c, in);
      for (int64_t begin = 0, i = 0; begin < c.tokens; ++i) {
        const int64_t length = std::min<int64_t>(c.tokens - begin, i < 15 ? 1 + i * 41 % 260 : c.tokens);
        c.segments.push_back({begin, length, begin});
        begin += length;
      }
      std::reverse(c.segments.begin(), c.segments.end());
      for (const int64_t page_rows : {32, 67, 64}) {
        c.page_rows = page_rows;
        const Choice parts = RunSelect(GpuOps(), gpu, c, in);
        EXPECT_TRUE(BitEqual("selected", parts.selected, whole.selected));
        EXPECT_TRUE(BitEqual("scores", parts.scores, whole.scores));
      }
    }
  }
}

// All probabilities 1, then all 0: whole numbers, ties go to the lower index.
TEST(SelectGpu, LeavesProcessors) {
  const SelectCase c{.tokens = 2500, .heads = 32, .groups = 2, .width = 128};
  const Machine gpu = GpuMachine(c.dtype);
  const std::unique_ptr<AttentionOps> few = MakeGpuAttention();
  few->LeaveProcessors(*gpu.stream, Multiprocessors(*gpu.stream) - 1);
  const Inputs in = RandomInputs(c);
  const Choice expected = RunSelect(GpuOps(), gpu, c, in), found = RunSelect(*few, gpu, c, in);
  EXPECT_TRUE(BitEqual("selected", found.selected, expected.selected));
  EXPECT_TRUE(BitEqual("scores", found.scores, expected.scores));
}

TEST(SelectGpu, TiesGoToTheLowestIndex) {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    for (const double lse : {0.0, 1e6}) {
      for (const NsaConfig& nsa : {NsaConfig{}, NsaConfig{.block = 64, .stride = 64, .select_block = 64},
                                   NsaConfig{.select = 40, .init = 0, .local = 0}}) {
        const SelectCase c = {.dtype = dtype, .tokens = 3333, .heads = 4, .groups = 2, .nsa = nsa};
        const Inputs in = {std::vector<double>(c.tokens * c.heads * c.width, 0.0),
                           std::vector<double>(KeyRows(c) * c.groups * c.width, 1.0),
                           std::vector<double>(c.tokens * c.heads, lse)};
        const Machine cpu = CpuMachine(DType::kF64);
        const Choice expected = RunSelect(*cpu.ops->attention, cpu, c, in);
        const Choice found = RunSelect(GpuOps(), GpuMachine(dtype), c, in);
        EXPECT_TRUE(BitEqual("selected", found.selected, expected.selected)) << Text(c);
        EXPECT_TRUE(BitEqual("scores", found.scores, expected.scores)) << Text(c);
      }
    }
  }
}

// Scores that grow with the position: every block beats all before it.
TEST(SelectGpu, RisingScores) {
  const SelectCase c = {.tokens = 4000, .heads = 2, .groups = 1};
  Inputs in = {std::vector<double>(c.tokens * c.heads * c.width, 0.0), std::vector<double>(KeyRows(c) * c.width, 0.0),
               std::vector<double>(c.tokens * c.heads, 0.0)};
  for (int64_t t = 0; t < c.tokens * c.heads; ++t) in.q[t * c.width] = 1;
  for (int64_t row = 0; row < KeyRows(c); ++row) in.k[row * c.width] = 0.25 * static_cast<double>(row / 4);
  in.k = Rounded(in.k, c.dtype);
  ExpectRightChoice(c, in, RunSelect(GpuOps(), GpuMachine(c.dtype), c, in));
}

TEST(SelectGpu, RefusesByName) {
  const SelectCase wide = {.tokens = 64, .nsa = {.select = 65}};
  EXPECT_THROW(RunSelect(GpuOps(), GpuMachine(wide.dtype), wide, RandomInputs(wide)), Error);
  const SelectCase fine = {.tokens = 300, .nsa = {.block = 2, .stride = 1, .select_block = 129}};
  EXPECT_THROW(RunSelect(GpuOps(), GpuMachine(fine.dtype), fine, RandomInputs(fine)), Error);
}

int64_t Hash(AttentionOps& ops, const Machine& machine, const std::vector<Segment>& segments,
             const std::vector<int32_t>& selected, const Shape& shape) {
  const OwnedTensor tensor = Upload(machine, "selected", selected, shape);
  const OwnedTensor hash(machine, "hash", DType::kI64, {1});
  ops.HashSelection(*machine.stream, {segments, tensor.view(), hash.view()});
  int64_t value = 0;
  machine.device->Copy(*machine.stream, HostView(&value, {1}), hash.view());
  machine.stream->Synchronize();
  return value;
}

TEST(SelectGpu, HashIsTheReferences) {
  std::mt19937_64 random(5);
  const Shape shape = {700, 3, 16};
  std::vector<int32_t> selected(shape.count());
  for (int32_t& block : selected) block = static_cast<int32_t>(random() % 100) - 1;
  const std::vector<Segment> segments = {{5000, 301, 0}, {64, 390, 310}};
  const Machine cpu = CpuMachine(DType::kF32), gpu = GpuMachine(DType::kF32);
  const int64_t expected = Hash(*cpu.ops->attention, cpu, segments, selected, shape);
  EXPECT_EQ(Hash(GpuOps(), gpu, segments, selected, shape), expected);
  selected[17] ^= 1;
  EXPECT_NE(Hash(GpuOps(), gpu, segments, selected, shape), expected);
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return longspan::GpuCount() == 0 ? 77 : RUN_ALL_TESTS();
}
