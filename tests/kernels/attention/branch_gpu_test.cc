// Forward of the branches and the combination on a GPU against the CPU reference in F64, which gets the inputs as the
// GPU's type rounds them. Outputs start as NaN, and so do key rows that nobody may read; every run is made twice and
// must give the same bits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/kernels/attention/branch_gpu_case.h"
#include "tests/support/compare.h"

namespace longspan::test {
namespace {

struct Results {
  std::vector<double> o, lse;
};

Results RunOn(Branch branch, AttentionOps& ops, const Machine& machine, const BranchCase& c, const Inputs& in) {
  const BranchRun run = MakeRun(machine, c, in);
  Launch(branch, ops, *machine.stream, c, run);
  machine.stream->Synchronize();
  return {DownloadValues(machine, run.o.view()), DownloadValues(machine, run.lse.view())};
}

void ExpectSame(Branch branch, const BranchCase& c, const Inputs& in) {
  SCOPED_TRACE(Describe(branch, c));
  const Machine gpu = GpuMachine(c.dtype), cpu = CpuMachine(DType::kF64);
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

Inputs InputsOf(Branch branch, const BranchCase& c) {
  return MakeInputs(c, KeyRows(branch, c), branch == kCmp ? c.nsa.lead() : 0);
}

void ExpectSame(const BranchCase& c) {
  for (const Branch branch : {kCmp, kSlc, kWin}) ExpectSame(branch, c, InputsOf(branch, c));
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
  for (const BranchCase& c : GroupSizeCases()) ExpectSame(c);
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

// Little, of all ways in which tiles come to be: whole, in parts of pages, row by row, and whole or not as they leave.
TEST(BranchGpu, Pieces) {
  for (const int64_t heads : {6, 8}) {
    for (const int64_t page_rows : {0, 16, 24, 64}) {
      BranchCase c{.tokens = 300, .heads = heads, .groups = 2, .key_width = 64, .value_width = 64};
      c.nsa.window = 150;
      c.doc_start = PackDocuments({100, 200}, 64);
      c.doc_start.resize(c.tokens);
      c.segments = {{0, 40, 60}, {70, 230, 100}};
      c.page_rows = page_rows;
      ExpectSame(kWin, c, InputsOf(kWin, c));
      ExpectSame(kCmp, c, InputsOf(kCmp, c));
    }
  }
}

// What a rank of several has: pages that none of its queries sees are nowhere, other rows that none sees are NaN.
TEST(BranchGpu, Halo) {
  for (const int64_t group_heads : {3, 16}) {
    for (const int64_t window : {1, 100, 512, 100000}) {
      for (const int64_t page_rows : {64, 128, 16}) {
        BranchCase c{.tokens = 1536, .heads = 2 * group_heads, .groups = 2, .key_width = 128, .value_width = 128};
        c.nsa.window = window;
        c.doc_start = PackDocuments({640, 1500}, 64);
        c.doc_start.resize(c.tokens);
        c.segments = {{512, 256, 0}, {1280, 200, 256}};
        c.page_rows = page_rows;
        Inputs in = InputsOf(kWin, c);
        std::vector<bool> seen(c.tokens);
        for (const Segment& segment : c.segments) {
          const int64_t first = std::max<int64_t>(c.doc_start[segment.begin], segment.begin - window + 1);
          std::fill(seen.begin() + first, seen.begin() + segment.begin + segment.length, true);
        }
        for (int64_t row = 0; row < c.tokens; ++row) {
          if (seen[row]) continue;
          const int64_t place = in.table[row / page_rows] * page_rows + row % page_rows;
          std::fill_n(in.k.begin() + place * c.groups * c.key_width, c.groups * c.key_width, kNan);
          std::fill_n(in.v.begin() + place * c.groups * c.value_width, c.groups * c.value_width, kNan);
        }
        for (int64_t first = 0; first < c.tokens; first += page_rows) {
          if (std::find(seen.begin() + first, seen.begin() + first + page_rows, true) ==
              seen.begin() + first + page_rows) {
            in.table[first / page_rows] = -1;
          }
        }
        ExpectSame(kWin, c, in);
      }
    }
  }
}

// A query's bits depend on no other query of the call and on no place: the whole sequence in one call, and cut in
// pieces of odd lengths, out of order, with keys in other pages.
TEST(BranchGpu, EachQueryByItself) {
  for (const auto& [group_heads, width] : {std::pair(1, 64), std::pair(4, 128), std::pair(5, 64), std::pair(16, 128)}) {
    for (const int64_t window : {1, 130, 512, 100000}) {
      BranchCase whole{.tokens = 900, .heads = group_heads, .key_width = width, .value_width = width};
      whole.nsa.window = window;
      whole.doc_start = PackDocuments({300, 1, 900}, 64);
      whole.doc_start.resize(whole.tokens);
      BranchCase cut = whole;
      for (int64_t begin = 0, i = 0; begin < whole.tokens; ++i) {
        const int64_t length = std::min<int64_t>(whole.tokens - begin, i < 15 ? 1 + i * 7 % 60 : whole.tokens);
        cut.segments.push_back({begin, length, begin});
        begin += length;
      }
      std::reverse(cut.segments.begin(), cut.segments.end());
      for (const Branch branch : {kCmp, kSlc, kWin}) {
        SCOPED_TRACE(Describe(branch, whole));
        const Machine gpu = GpuMachine(whole.dtype);
        Inputs in = InputsOf(branch, whole);
        const Results expected = RunOn(branch, GpuOps(), gpu, whole, in);
        in.segments = cut.segments;
        if (in.page_rows % 2 == 0) {  // the same buffer, its halves called pages
          in.page_rows /= 2;
          in.table = {0, 1};
        }
        const Results found = RunOn(branch, GpuOps(), gpu, cut, in);
        EXPECT_TRUE(BitEqual("o", RowsOf(found.o, in), RowsOf(expected.o, in)));
        EXPECT_TRUE(BitEqual("lse", RowsOf(found.lse, in), RowsOf(expected.lse, in)));
      }
    }
  }
}

// All multiprocessors but one left to others: the same bits, later.
TEST(BranchGpu, LeavesProcessors) {
  const BranchCase c{.tokens = 2048, .heads = 32, .groups = 2, .key_width = 128, .value_width = 128};
  const Machine gpu = GpuMachine(c.dtype);
  const int processors = Multiprocessors(*gpu.stream);
  const std::unique_ptr<AttentionOps> few = MakeGpuAttention();
  EXPECT_THROW(few->LeaveProcessors(*gpu.stream, processors), Error);
  few->LeaveProcessors(*gpu.stream, processors - 1);
  const std::string kernels = few->Kernels(*gpu.stream, {c.dtype, c.heads, c.groups, c.key_width, c.value_width});
  for (const Branch branch : {kCmp, kSlc, kWin}) {
    SCOPED_TRACE(Describe(branch, c));
    const Inputs in = InputsOf(branch, c);
    const Results expected = RunOn(branch, GpuOps(), gpu, c, in), found = RunOn(branch, *few, gpu, c, in);
    EXPECT_TRUE(BitEqual("o", found.o, expected.o));
    EXPECT_TRUE(BitEqual("lse", found.lse, expected.lse));
    if (kernels != "sm90") continue;  // no others stay
    const BranchRun run = MakeRun(gpu, c, in);
    const auto seconds = [&](AttentionOps& ops) {
      const std::unique_ptr<Timer> timer = gpu.device->MakeTimer();
      Launch(branch, ops, *gpu.stream, c, run);
      timer->Start(*gpu.stream);
      Launch(branch, ops, *gpu.stream, c, run);
      timer->Stop(*gpu.stream);
      return timer->Seconds();
    };
    EXPECT_GT(seconds(*few), 4 * seconds(GpuOps()));
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

      // o, d_gates.
      const auto run = [&](const Machine& machine, AttentionOps& ops) {
        const bool on_gpu = machine.device->kind() == DeviceKind::kGpu;
        const auto upload = [&](const std::vector<double>& values, const Shape& dims) {
          return on_gpu ? UploadValues(machine, "in", values, dims) : Upload(machine, "in", values, dims);
        };
        const OwnedTensor in_gates = upload(gates, gate_shape), in_d_o = upload(d_o, shape);
        const OwnedTensor in_o[3] = {upload(o[0], shape), upload(o[1], shape), upload(o[2], shape)};
        const OwnedTensor out(machine, "o", machine.dtype, shape);
        const OwnedTensor d_gates(machine, "d_gates", on_gpu ? DType::kF32 : machine.dtype, gate_shape);
        const CombineArgs args{in_gates.view(), in_o[0].view(), in_o[1].view(), in_o[2].view(), out.view()};
        ops.Combine(*machine.stream, args);
        ops.CombineBackward(*machine.stream, args, {in_d_o.view(), d_gates.view()});
        machine.stream->Synchronize();
        std::vector<std::vector<double>> results;
        for (const OwnedTensor* tensor : {&out, &d_gates}) {
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
