// Backward of the branches on a GPU against the CPU reference in F64, which gets the inputs, o and lse as the GPU's
// types round them. Gradients start from values that must stay in the sum; key rows that nobody sees are NaN; every run
// is made twice and must give the same bits. What is compared is what was added.
#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "kernels/attention/cpu/visibility.h"
#include "tests/kernels/attention/branch_gpu_case.h"
#include "tests/kernels/attention/held_processors_gpu.h"
#include "tests/support/compare.h"

namespace longspan::test {
namespace {

Visibility Sight(Branch branch, const BranchCase& c, const Inputs& in) {
  const Tensor starts = c.doc_start.empty() ? Tensor() : HostView(c.doc_start.data(), {c.tokens});
  if (branch == kCmp) return SeenCompressed(starts, c.nsa.block, c.nsa.stride);
  if (branch == kSlc) {
    SelectedArgs args;
    args.select_block = c.nsa.select_block;
    args.selected = HostView(in.selected.data(), {in.query_rows, c.groups, c.nsa.select});
    return SeenSelected(args);
  }
  WindowArgs args;
  args.doc_start = starts;
  args.window = c.nsa.window;
  return SeenWindow(args);
}

// NaN into the key rows that no query of the group sees; their pages may go, and their rows may be asked for by no one.
void PoisonUnseen(Branch branch, const BranchCase& c, Inputs* in) {
  const Visibility visible = Sight(branch, c, *in);
  const int64_t rows = std::ssize(in->table) * in->page_rows;
  std::vector<char> page_seen(in->table.size());
  for (int64_t group = 0; group < c.groups; ++group) {
    std::vector<char> seen(rows);
    std::vector<Span> spans;
    for (const Segment& segment : in->segments) {
      for (int64_t i = 0; i < segment.length; ++i) {
        spans.clear();
        visible({segment.begin + i, segment.row + i}, group, &spans);
        for (const Span& span : spans) std::fill(seen.begin() + span.begin, seen.begin() + span.end, 1);
      }
    }
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t place = in->table[row / in->page_rows] * in->page_rows + row % in->page_rows;
      page_seen[row / in->page_rows] |= seen[row];
      if (seen[row]) continue;
      std::fill_n(in->k.begin() + (place * c.groups + group) * c.key_width, c.key_width, kNan);
      std::fill_n(in->v.begin() + (place * c.groups + group) * c.value_width, c.value_width, kNan);
    }
  }
  for (size_t page = 0; page < page_seen.size(); ++page) {
    if (!page_seen[page]) in->table[page] = -1;
  }
}

struct Gradients {
  std::vector<double> d_q, d_k, d_v;
};

struct Wanted {
  bool d_q = true, d_k = true, d_v = true;
  bool overwritten = false;  // d_q, not added to
};

std::vector<double> Normals(int64_t count, double scale, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, scale);
  std::vector<double> values(count);
  for (double& x : values) x = static_cast<float>(normal(random));
  return values;
}

// What a backward starts from.
struct Saved {
  std::vector<double> o, lse, d_o;
  std::vector<double> gates, d_gates;  // empty: not gated
  Gradients start;
};

Saved MakeSaved(Branch branch, const BranchCase& c, const Inputs& in) {
  const Machine cpu = CpuMachine(DType::kF64);
  const BranchRun run = MakeRun(cpu, c, in);
  Launch(branch, *cpu.ops->attention, *cpu.stream, c, run);
  cpu.stream->Synchronize();
  Saved saved;
  saved.o = Rounded(Download(cpu, run.o.view()), c.dtype);
  saved.lse = Rounded(Download(cpu, run.lse.view()), DType::kF32);
  saved.d_o = Rounded(Normals(run.o.view().size(), 1, c.seed + 1), c.dtype);
  // Rows of q that no segment holds may be poisoned; then those of d_o are, too.
  for (int64_t i = 0; i < std::ssize(saved.d_o); ++i) {
    if (std::isnan(in.q[i / c.value_width * c.key_width])) saved.d_o[i] = kNan;
  }
  saved.start = {Normals(run.q.view().size(), 0.01, c.seed + 2), Normals(run.k.view().size(), 0.01, c.seed + 3),
                 Normals(run.v.view().size(), 0.01, c.seed + 4)};
  return saved;
}

// What was added to each gradient; empty for one that was not wanted. `around` calls what it is given.
using Around = std::function<void(const std::function<void()>&)>;

Gradients Backward(
    Branch branch, AttentionOps& ops, const Machine& machine, const BranchCase& c, const Inputs& in, const Saved& saved,
    const Wanted& wanted = {}, const Around& around = [](const auto& run) { run(); }) {
  const bool gpu = machine.device->kind() == DeviceKind::kGpu;
  BranchRun run = MakeRun(machine, c, in);
  Machine sums = machine;
  if (gpu) sums.dtype = DType::kF32;
  const auto upload = [&](const Machine& to, const char* name, const std::vector<double>& values, const Shape& shape) {
    return gpu ? UploadValues(to, name, values, shape) : Upload(to, name, values, shape);
  };
  run.o = upload(machine, "o", saved.o, run.args.o.shape);
  run.lse = upload(sums, "lse", saved.lse, run.args.lse.shape);
  run.Bind(in.segments, in.page_rows);
  const OwnedTensor d_o = upload(machine, "d_o", saved.d_o, run.args.o.shape);
  const int branch_of_gate = 1;
  OwnedTensor gates, d_gates, d_q, d_k, d_v;
  if (!saved.gates.empty()) {
    const Shape shape = {in.query_rows, c.heads, 3};
    gates = upload(machine, "gates", saved.gates, shape);
    d_gates = upload(sums, "d_gates", saved.d_gates, shape);
  }
  std::vector<double> start_of_q = saved.start.d_q;
  if (wanted.overwritten) std::fill(start_of_q.begin(), start_of_q.end(), kNan);
  if (wanted.d_q) d_q = upload(sums, "d_q", start_of_q, run.args.q.shape);
  if (wanted.d_k) d_k = upload(sums, "d_k", saved.start.d_k, run.args.kv.k.shape);
  if (wanted.d_v) d_v = upload(sums, "d_v", saved.start.d_v, run.args.kv.v.shape);
  around([&] {
    LaunchBackward(branch, ops, *machine.stream, c, run,
                   {d_o.view(),
                    d_q.view(),
                    d_k.view(),
                    d_v.view(),
                    {gates.view(), d_gates.view(), branch_of_gate},
                    wanted.overwritten});
    machine.stream->Synchronize();
  });
  const auto added = [&](const OwnedTensor& tensor, const std::vector<double>& start) {
    if (!tensor.view()) return std::vector<double>();
    std::vector<double> values = Download(machine, tensor.view());
    for (size_t i = 0; i < values.size(); ++i) values[i] -= start[i];
    return values;
  };
  if (wanted.overwritten) std::fill(start_of_q.begin(), start_of_q.end(), 0);
  return {added(d_q, start_of_q), added(d_k, saved.start.d_k), added(d_v, saved.start.d_v)};
}

void ExpectSameBits(const Gradients& found, const Gradients& expected, const Wanted& wanted = {}) {
  if (wanted.d_q) {
    EXPECT_TRUE(BitEqual("d_q", found.d_q, expected.d_q));
  }
  if (wanted.d_k) {
    EXPECT_TRUE(BitEqual("d_k", found.d_k, expected.d_k));
  }
  if (wanted.d_v) {
    EXPECT_TRUE(BitEqual("d_v", found.d_v, expected.d_v));
  }
}

// GPU and reference from the same state.
void ExpectSame(Branch branch, const BranchCase& c, const Inputs& in, const Saved& saved) {
  const Machine gpu = GpuMachine(c.dtype), cpu = CpuMachine(DType::kF64);
  const Gradients expected = Backward(branch, *cpu.ops->attention, cpu, c, in, saved);
  const Gradients found = Backward(branch, GpuOps(), gpu, c, in, saved);
  const double tolerance = c.dtype == DType::kF32 ? 1e-5 : 0.005;
  const double floor = GradientFloor({&expected.d_q, &expected.d_k, &expected.d_v});
  EXPECT_TRUE(RmsClose("d_q", found.d_q, expected.d_q, tolerance, floor));
  EXPECT_TRUE(RmsClose("d_k", found.d_k, expected.d_k, tolerance, floor));
  EXPECT_TRUE(RmsClose("d_v", found.d_v, expected.d_v, tolerance, floor));
  ExpectSameBits(Backward(branch, GpuOps(), gpu, c, in, saved), found);
}

// `change` may alter the inputs of a branch.
void ExpectSame(
    const BranchCase& c, const std::vector<Branch>& branches = {kCmp, kSlc, kWin},
    const std::function<void(Inputs*)>& change = [](Inputs*) {}) {
  for (const Branch branch : branches) {
    SCOPED_TRACE(Describe(branch, c));
    Inputs in = MakeInputs(c, KeyRows(branch, c), branch == kCmp ? c.nsa.lead() : 0);
    change(&in);
    PoisonUnseen(branch, c, &in);
    ExpectSame(branch, c, in, MakeSaved(branch, c, in));
  }
}

TEST(BranchBackwardGpu, Widths) {
  for (const auto& [key_width, value_width] : {std::pair(64, 64), std::pair(128, 128), std::pair(192, 128)}) {
    ExpectSame({.tokens = 1100, .heads = 32, .groups = 2, .key_width = key_width, .value_width = value_width});
  }
}

TEST(BranchBackwardGpu, PaddedWidths) {
  for (const auto& [key_width, value_width] :
       {std::pair(16, 16), std::pair(8, 24), std::pair(96, 40), std::pair(40, 96), std::pair(136, 128)}) {
    ExpectSame({.tokens = 333, .heads = 8, .groups = 2, .key_width = key_width, .value_width = value_width});
  }
}

TEST(BranchBackwardGpu, GroupSizes) {
  for (const BranchCase& c : GroupSizeCases()) ExpectSame(c);
}

// Gates from 0 to 1, both of which occur, of queries that see nothing, too; and d_q overwritten.
TEST(BranchBackwardGpu, Gates) {
  for (const auto& [dtype, width] : {std::pair(DType::kBf16, 128), std::pair(DType::kBf16, 64),
                                     std::pair(DType::kBf16, 40), std::pair(DType::kF32, 40)}) {
    const BranchCase c{
        .dtype = dtype, .tokens = 700, .heads = 32, .groups = 2, .key_width = width, .value_width = width};
    for (const Branch branch : {kCmp, kSlc, kWin}) {
      SCOPED_TRACE(Describe(branch, c));
      const Inputs in = MakeInputs(c, KeyRows(branch, c), branch == kCmp ? c.nsa.lead() : 0);
      Saved saved = MakeSaved(branch, c, in);
      const int64_t rows = in.query_rows * c.heads;
      for (int64_t i = 0; i < rows * 3; ++i) saved.gates.push_back(i % 33 / 32.0);
      for (int64_t row = 0; row < rows; ++row) {
        const auto o = saved.o.begin() + row * width, d_o = saved.d_o.begin() + row * width;
        saved.d_gates.insert(saved.d_gates.end(), 3, std::inner_product(o, o + width, d_o, 0.0));
      }
      saved.d_gates = Rounded(saved.d_gates, DType::kF32);
      ExpectSame(branch, c, in, saved);
      const Machine gpu = GpuMachine(dtype);
      std::vector<double> added = Backward(branch, GpuOps(), gpu, c, in, saved).d_q;
      std::vector<double> over = Backward(branch, GpuOps(), gpu, c, in, saved, {.overwritten = true}).d_q;
      for (auto* d_q : {&added, &over}) d_q->resize(c.tokens * c.heads * width);  // those of the segment
      EXPECT_TRUE(RmsClose("d_q", over, added, 1e-5));
    }
  }
}

TEST(BranchBackwardGpu, Float) {
  for (const int64_t group_heads : {1, 2, 4, 8, 16}) {
    ExpectSame({.dtype = DType::kF32,
                .tokens = 300,
                .heads = 2 * group_heads,
                .groups = 2,
                .key_width = 18,
                .value_width = 33,
                .nsa = {.window = 100}});
  }
  ExpectSame({.dtype = DType::kF32, .tokens = 600, .heads = 4, .groups = 2, .key_width = 192, .value_width = 256});
}

// Documents, the two segments of head-tail, shuffled pages; sizes that no tile divides.
TEST(BranchBackwardGpu, Placement) {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    BranchCase c{.dtype = dtype, .tokens = 2048, .heads = 8, .groups = 2};
    c.nsa.window = 300;
    c.segments = {{256, 256, 256}, {1536, 256, 0}};
    for (const bool documents : {false, true}) {
      if (documents) {
        c.doc_start = PackDocuments({70, 1, 900, 64, 2000}, 64);
        c.doc_start.resize(2048);
      }
      for (const int64_t page_rows : {0, 64, 16, 48, 128}) {
        c.page_rows = page_rows;
        ExpectSame(c);
      }
    }
  }
}

// As many segments as a call may have, of lengths that no tile divides, neighbours apart, in rows of another order;
// with gaps that no query fills, so that some keys have none.
TEST(BranchBackwardGpu, ManySegments) {
  for (const auto& [group_heads, width] : {std::pair(16, 128), std::pair(5, 128), std::pair(3, 64)}) {
    BranchCase c{
        .tokens = 1500, .heads = 2 * group_heads, .groups = 2, .key_width = width, .value_width = width, .seed = 5};
    c.nsa.window = 200;
    for (int64_t i = 0; i < 16; ++i) c.segments.push_back({i * 90 + i % 3, 83, (i * 5 % 16) * 83});
    for (const bool documents : {false, true}) {
      if (documents) {
        c.doc_start = PackDocuments({70, 1, 500, 64, 1000}, 64);
        c.doc_start.resize(c.tokens);
      }
      for (const int64_t page_rows : {0, 16, 128}) {
        c.page_rows = page_rows;
        ExpectSame(c, {kCmp, kWin});
      }
    }
  }
}

// Little, of all ways in which tiles and gradients come and go; with 64 heads a group in parts.
TEST(BranchBackwardGpu, Pieces) {
  for (const auto& [width, group_heads] : {std::pair(64, 3), std::pair(128, 3), std::pair(128, 64)}) {
    for (const int64_t window : {150, 100000}) {
      for (const int64_t page_rows : {0, 24, 64}) {
        BranchCase c{.tokens = 300, .heads = 2 * group_heads, .groups = 2, .key_width = width, .value_width = width};
        c.nsa.window = window;
        c.doc_start = PackDocuments({100, 200}, 64);
        c.doc_start.resize(c.tokens);
        c.segments = {{0, 40, 60}, {70, 230, 100}};
        c.page_rows = page_rows;
        ExpectSame(c, {kCmp, kWin});
      }
    }
  }
}

// Nobody waits for blocks that have yet to begin: the same bits while other kernels hold nearly the whole GPU.
TEST(BranchBackwardGpu, NeedsFewProcessors) {
  BranchCase c{.tokens = 3000, .heads = 32, .groups = 2, .key_width = 128, .value_width = 128};
  c.nsa.window = 100000;
  for (const Branch branch : {kCmp, kSlc, kWin}) {
    SCOPED_TRACE(Describe(branch, c));
    const Inputs in = MakeInputs(c, KeyRows(branch, c), branch == kCmp ? c.nsa.lead() : 0);
    const Saved saved = MakeSaved(branch, c, in);
    const Machine gpu = GpuMachine(c.dtype);
    const Gradients alone = Backward(branch, GpuOps(), gpu, c, in, saved);
    ExpectSameBits(Backward(branch, GpuOps(), gpu, c, in, saved, {},
                            [](const auto& run) {
                              HeldProcessors held(3);
                              run();
                              EXPECT_TRUE(held.Release());
                            }),
                   alone);
  }
}

TEST(BranchBackwardGpu, BlockSizes) {
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

// Keys with so many watchers that they are cut into several work items: block 0, which everybody chooses, the first
// compressed tokens, and the first keys of dense attention; with documents, in which the numbers differ.
TEST(BranchBackwardGpu, HotKeys) {
  for (const bool documents : {false, true}) {
    BranchCase c{.tokens = 3000, .heads = 8, .groups = 2, .seed = 11};
    c.nsa.window = 100000;
    if (documents) {
      c.doc_start = PackDocuments({1200, 1800}, 64);
      c.doc_start.resize(3000);
    }
    ExpectSame(c, {kCmp, kSlc, kWin}, [&](Inputs* in) {
      for (size_t i = 0; i < in->selected.size(); i += c.nsa.select) {
        const int64_t t = static_cast<int64_t>(i) / (c.nsa.select * c.groups);
        if (in->selected[i + 1] >= 0) in->selected[i] = documents ? c.doc_start[t] / 64 : 0;
      }
    });
    c.dtype = DType::kF32;
    ExpectSame(c, {kSlc});
  }
  ExpectSame({.tokens = 3000, .heads = 32, .groups = 2, .key_width = 128, .value_width = 128, .nsa = {.window = 1400}},
             {kCmp, kWin});
}

// Lists of the selected branch: one block that every query chooses, blocks that none does, both among others; blocks of
// one tile of keys, of less and of more; pages that hold a tile and pages that do not; rows that no segment holds.
TEST(BranchBackwardGpu, SelectedLists) {
  const auto expect = [](const BranchCase& c, bool one_block) {
    ExpectSame(c, {kSlc}, [&](Inputs* in) {
      const int64_t n = c.nsa.select;
      for (int64_t i = 0; i < std::ssize(in->selected); i += n) {
        int32_t* const chosen = in->selected.data() + i;
        if (one_block) {
          std::fill(chosen, chosen + n, -1);
          chosen[0] = 0;
          continue;
        }
        chosen[0] = chosen[0] < 0 ? -1 : 0;  // the first for all, the third and fourth for none
        const auto is_left_out = [](int32_t block) { return block == 2 || block == 3; };
        std::fill(std::remove_if(chosen, chosen + n, is_left_out), chosen + n, -1);
      }
      std::fill(in->q.end() - c.heads * c.key_width, in->q.end(), kNan);
    });
  };
  for (const auto& [group_heads, width] :
       {std::pair(16, 128), std::pair(4, 128), std::pair(12, 128), std::pair(16, 64), std::pair(1, 64)}) {
    for (const auto& [block, page_rows] : {std::pair(64, 64), std::pair(32, 16), std::pair(128, 0), std::pair(64, 0)}) {
      BranchCase c{
          .tokens = 1400, .heads = 2 * group_heads, .groups = 2, .key_width = width, .value_width = width, .seed = 3};
      c.nsa.select_block = block;
      c.nsa.select = 6;
      c.segments = {{1100, 300, 0}, {70, 421, 340}};
      c.page_rows = page_rows;
      expect(c, page_rows == 0 && block == 64);
    }
  }
  // Several segments of the lists, and items of one.
  BranchCase c{.tokens = 5000, .heads = 16, .groups = 1, .key_width = 128, .value_width = 128, .nsa = {.select = 3}};
  expect(c, false);
  expect(c, true);
}

// Windows that end within tiles, and queries that fill no step.
TEST(BranchBackwardGpu, Windows) {
  for (const int64_t window : {1, 100, 512, 700}) {
    for (const int64_t group_heads : {16, 6}) {
      BranchCase c{.tokens = 1111, .heads = 2 * group_heads, .groups = 2, .key_width = 128, .value_width = 128};
      c.nsa.window = window;
      ExpectSame(c, {kWin});
    }
  }
}

// Key tiles enough for a GPU, each with steps enough for parts: they are not cut.
TEST(BranchBackwardGpu, AWindowOfManyTiles) {
  BranchCase c{.tokens = 2081, .heads = 128, .groups = 8, .key_width = 64, .value_width = 64};
  c.nsa.window = 400;
  ExpectSame(c, {kWin});
}

TEST(BranchBackwardGpu, UnwantedGradientsAreLeftOut) {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    const BranchCase c{.dtype = dtype, .tokens = 2100, .heads = 4, .groups = 2};
    for (const Branch branch : {kCmp, kSlc, kWin}) {
      SCOPED_TRACE(Describe(branch, c));
      const Inputs in = MakeInputs(c, KeyRows(branch, c), branch == kCmp ? c.nsa.lead() : 0);
      const Saved saved = MakeSaved(branch, c, in);
      const Machine gpu = GpuMachine(dtype);
      const Gradients all = Backward(branch, GpuOps(), gpu, c, in, saved);
      for (const Wanted& wanted : {Wanted{true, false, false}, Wanted{false, true, false}, Wanted{false, false, true},
                                   Wanted{false, false, false}}) {
        ExpectSameBits(Backward(branch, GpuOps(), gpu, c, in, saved, wanted), all, wanted);
      }
    }
  }
}

TEST(BranchBackwardGpu, WidthsBeyondTheKernelsAreRefusedInBf16) {
  const BranchCase c{.tokens = 64, .heads = 2, .key_width = 256, .value_width = 256};
  const Inputs in = MakeInputs(c, 64, 0);
  const Saved saved = MakeSaved(kWin, c, in);
  EXPECT_THROW(Backward(kWin, GpuOps(), GpuMachine(c.dtype), c, in, saved), Error);
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return longspan::GpuCount() == 0 ? 77 : RUN_ALL_TESTS();
}
