#include "tests/kernels/attention/sampled_gpu_case.h"

#include <array>
#include <bit>

#include "tests/kernels/attention/choice_check.h"
#include "tests/support/compare.h"
#include "tests/support/gpu_random.h"

namespace longspan::test {
namespace {

// Seeds of the inputs.
enum Seed : uint64_t { kQuery = 1, kKey, kValue, kOutputGradient, kGate, kChoice, kBranchOutput, kCompression = 20 };

// What gradients start from, in every byte: as a number small, so that what is added loses nothing.
constexpr uint8_t kStartByte = 0x3A;
const double kStart = std::bit_cast<float>(0x3A3A3A3A);

double Tolerance(DType dtype) { return dtype == DType::kF32 ? 1e-5 : 0.005; }

std::vector<Segment> Whole(int64_t rows) { return {{0, rows, 0}}; }

int64_t CountRows(const std::vector<Segment>& segments) {
  int64_t rows = 0;
  for (const Segment& segment : segments) rows += segment.length;
  return rows;
}

// The rows of these segments of a tensor in GPU memory.
std::vector<double> SampledRows(const Machine& gpu, const std::vector<Segment>& samples, const Tensor& tensor) {
  std::vector<double> rows;
  for (const Segment& sample : samples) {
    const std::vector<double> part = DownloadValues(gpu, tensor.Rows(sample.begin, sample.length));
    rows.insert(rows.end(), part.begin(), part.end());
  }
  return rows;
}

// Rows that no sample has: the samples' neighbours, and others wide apart.
std::vector<int64_t> OtherRows(const std::vector<Segment>& samples, int64_t rows) {
  std::vector<int64_t> others;
  for (const Segment& sample : samples) others.insert(others.end(), {sample.begin - 1, sample.begin + sample.length});
  for (int64_t row = 5; row < rows; row += 8209) others.push_back(row);
  std::erase_if(others, [&](int64_t row) {
    return row < 0 || row >= rows || std::any_of(samples.begin(), samples.end(), [=](const Segment& sample) {
             return sample.begin <= row && row < sample.begin + sample.length;
           });
  });
  return others;
}

void ExpectWritten(const char* name, const Machine& gpu, const std::vector<Segment>& samples, const Tensor& tensor) {
  for (const int64_t row : OtherRows(samples, tensor.dim(0))) {
    EXPECT_TRUE(AllFinite(fmt::format("{} of row {}", name, row), DownloadValues(gpu, tensor.Rows(row, 1))));
  }
}

void ExpectUntouched(const char* name, const Machine& gpu, const std::vector<Segment>& samples, const Tensor& tensor) {
  const std::vector<double> expected(tensor.size() / tensor.dim(0), kStart);
  for (const int64_t row : OtherRows(samples, tensor.dim(0))) {
    EXPECT_TRUE(BitEqual(fmt::format("{} of row {}", name, row), DownloadValues(gpu, tensor.Rows(row, 1)), expected));
  }
}

Machine InF32(const Machine& machine) { return {machine.device, machine.stream, machine.ops, DType::kF32}; }

OwnedTensor FilledWith(const Machine& machine, const char* name, DType dtype, const Shape& shape, uint8_t byte) {
  OwnedTensor tensor(machine, name, dtype, shape);
  machine.device->FillBytes(*machine.stream, tensor.view(), byte);
  return tensor;
}

// A gradient on the GPU that accumulates.
OwnedTensor Started(const Machine& gpu, const char* name, const Shape& shape) {
  return FilledWith(gpu, name, DType::kF32, shape, kStartByte);
}
OwnedTensor ZerosOnCpu(const Machine& cpu, const char* name, const Shape& shape) {
  return FilledWith(cpu, name, cpu.dtype, shape, 0);
}
std::vector<double> Added(std::vector<double> values) {
  for (double& x : values) x -= kStart;
  return values;
}

// 0 but in the sampled rows.
OwnedTensor ZeroButSampled(const Machine& gpu, const char* name, const std::vector<Segment>& samples,
                           const std::vector<double>& values, const Shape& shape) {
  OwnedTensor tensor = FilledWith(gpu, name, gpu.dtype, shape, 0);
  const OwnedTensor rows = UploadValues(gpu, name, values, {CountRows(samples), shape[1], shape[2]});
  for (const Segment& sample : samples) {
    gpu.device->Copy(*gpu.stream, tensor.view().Rows(sample.begin, sample.length),
                     rows.view().Rows(sample.row, sample.length));
  }
  gpu.stream->Synchronize();
  return tensor;
}

// A query's own block, and of those before it all or one of each of n-1 equal stretches.
std::vector<int32_t> Choices(const BranchCase& c, const std::vector<Segment>& segments) {
  const int64_t n = c.nsa.select;
  std::vector<int32_t> choices;
  choices.reserve(CountRows(segments) * c.groups * n);
  for (const Segment& segment : segments) {
    for (int64_t place = segment.begin * c.groups; place < (segment.begin + segment.length) * c.groups; ++place) {
      const int64_t own = place / c.groups / c.nsa.select_block;
      for (int64_t i = 0; i < n; ++i) {
        int64_t block = i <= own ? i : -1;
        if (own >= n) {
          const int64_t begin = own * i / (n - 1), end = own * (i + 1) / (n - 1);
          block = i == n - 1 ? own : begin + static_cast<int64_t>(RandomBits(kChoice, place * n + i) % (end - begin));
        }
        choices.push_back(static_cast<int32_t>(block));
      }
    }
  }
  return choices;
}

BranchRun GpuRun(const Machine& gpu, Branch branch, const BranchCase& c) {
  const int64_t key_rows = KeyRows(branch, c);
  BranchRun run;
  run.q = RandomOnGpu(gpu, "q", kQuery, {c.tokens, c.heads, c.key_width});
  run.k = RandomOnGpu(gpu, "k", kKey, {key_rows, c.groups, c.key_width});
  run.v = RandomOnGpu(gpu, "v", kValue, {key_rows, c.groups, c.value_width});
  run.table = Upload(gpu, "table", std::vector<int32_t>{0}, {1});
  if (branch == kSlc) {
    run.selected = Upload(gpu, "selected", Choices(c, Whole(c.tokens)), {c.tokens, c.groups, c.nsa.select});
  }
  run.o = OwnedTensor(gpu, "o", c.dtype, {c.tokens, c.heads, c.value_width});
  run.lse = OwnedTensor(gpu, "lse", DType::kF32, {c.tokens, c.heads});
  run.Bind(Whole(c.tokens), key_rows);
  return run;
}

BranchRun CpuRun(const Machine& cpu, Branch branch, const BranchCase& c) {
  const int64_t key_rows = KeyRows(branch, c);
  Inputs in;
  in.segments = c.segments;
  in.query_rows = CountRows(c.segments);
  in.q = RandomRows(c.dtype, kQuery, c.segments, c.heads * c.key_width);
  in.k = RandomRows(c.dtype, kKey, Whole(key_rows), c.groups * c.key_width);
  in.v = RandomRows(c.dtype, kValue, Whole(key_rows), c.groups * c.value_width);
  in.table = {0};
  in.page_rows = in.buffer_rows = key_rows;
  in.selected = Choices(c, c.segments);
  return MakeRun(cpu, c, in);
}

// About the compressed branch's, of scores of variance 1.
std::vector<double> LikelyLse(const BranchCase& c, const std::vector<Segment>& segments) {
  std::vector<double> lse;
  for (const Segment& segment : segments) {
    for (int64_t t = segment.begin; t < segment.begin + segment.length; ++t) {
      const int64_t seen = t + 1 < c.nsa.block ? 0 : (t + 1 - c.nsa.block) / c.nsa.stride + 1;
      lse.insert(lse.end(), c.heads, static_cast<float>(std::log(static_cast<double>(seen)) + 0.5));
    }
  }
  return lse;
}

}  // namespace

std::vector<Segment> Samples(const std::vector<std::pair<int64_t, int64_t>>& spans) {
  std::vector<Segment> samples;
  for (const auto& [begin, end] : spans) samples.push_back({begin, end - begin, CountRows(samples)});
  return samples;
}

void ExpectSampledBranch(Branch branch, const BranchCase& c) {
  SCOPED_TRACE(Describe(branch, c));
  const Machine gpu = GpuMachine(c.dtype), cpu = CpuMachine(DType::kF64);
  const double tolerance = Tolerance(c.dtype);
  const BranchRun run = GpuRun(gpu, branch, c);
  BranchRun reference = CpuRun(cpu, branch, c);
  Launch(branch, GpuOps(), *gpu.stream, c, run);
  Launch(branch, *cpu.ops->attention, *cpu.stream, c, reference);
  gpu.stream->Synchronize();
  cpu.stream->Synchronize();
  const std::vector<double> o = SampledRows(gpu, c.segments, run.o.view());
  const std::vector<double> lse = SampledRows(gpu, c.segments, run.lse.view());
  EXPECT_TRUE(RmsClose("o", o, Download(cpu, reference.o.view()), tolerance));
  EXPECT_TRUE(RmsClose("lse", lse, Download(cpu, reference.lse.view()), 1e-5));
  ExpectWritten("o", gpu, c.segments, run.o.view());

  // Both start from the GPU's o and lse.
  const BranchArgs& args = reference.args;
  const std::vector<double> d_o = RandomRows(c.dtype, kOutputGradient, c.segments, c.heads * c.value_width);
  reference.o = Upload(cpu, "o", o, args.o.shape);
  reference.lse = Upload(cpu, "lse", lse, args.lse.shape);
  reference.Bind(c.segments, args.kv.pages.page_rows);
  const OwnedTensor given = ZeroButSampled(gpu, "d_o", c.segments, d_o, run.args.o.shape);
  const OwnedTensor d_q = Started(gpu, "d_q", run.args.q.shape), d_k = Started(gpu, "d_k", run.args.kv.k.shape);
  const OwnedTensor d_v = Started(gpu, "d_v", run.args.kv.v.shape);
  LaunchBackward(branch, GpuOps(), *gpu.stream, c, run, {given.view(), d_q.view(), d_k.view(), d_v.view()});
  const OwnedTensor cpu_d_o = Upload(cpu, "d_o", d_o, args.o.shape), cpu_d_q = ZerosOnCpu(cpu, "d_q", args.q.shape);
  const OwnedTensor cpu_d_k = ZerosOnCpu(cpu, "d_k", args.kv.k.shape);
  const OwnedTensor cpu_d_v = ZerosOnCpu(cpu, "d_v", args.kv.v.shape);
  LaunchBackward(branch, *cpu.ops->attention, *cpu.stream, c, reference,
                 {cpu_d_o.view(), cpu_d_q.view(), cpu_d_k.view(), cpu_d_v.view()});
  gpu.stream->Synchronize();
  cpu.stream->Synchronize();
  const auto expect = [&](const char* name, const std::vector<double>& found, const OwnedTensor& expected) {
    EXPECT_TRUE(RmsClose(name, Added(found), Download(cpu, expected.view()), tolerance));
  };
  expect("d_q", SampledRows(gpu, c.segments, d_q.view()), cpu_d_q);
  expect("d_k", DownloadValues(gpu, d_k.view()), cpu_d_k);
  expect("d_v", DownloadValues(gpu, d_v.view()), cpu_d_v);
  ExpectUntouched("d_q", gpu, c.segments, d_q.view());
}

void ExpectSampledChoice(const BranchCase& c) {
  SCOPED_TRACE(Describe(kCmp, c));
  const Machine gpu = GpuMachine(c.dtype), cpu = CpuMachine(DType::kF64);
  const int64_t key_rows = KeyRows(kCmp, c), n = c.nsa.select, blocks = (c.tokens - 1) / c.nsa.select_block + 1;
  struct Run {
    OwnedTensor q, k, lse, table, selected, scores;
  };
  const auto select = [&](const Machine& machine, AttentionOps& ops, const std::vector<Segment>& segments, Run* run,
                          int64_t count) {
    const int64_t rows = CountRows(segments);
    const Machine sums = machine.dtype == DType::kF64 ? machine : InF32(machine);
    run->table = Upload(machine, "table", std::vector<int32_t>{0}, {1});
    run->lse = Upload(sums, "lse", LikelyLse(c, segments), {rows, c.heads});
    run->selected = OwnedTensor(machine, "selected", DType::kI32, {rows, c.groups, count});
    run->scores = OwnedTensor(machine, "scores", sums.dtype, {rows, c.groups, count});
    SelectArgs args;
    args.segments = segments;
    args.q = run->q.view();
    args.k = run->k.view();
    args.pages = {run->table.view(), key_rows};
    args.lse = run->lse.view();
    args.scale = 1 / std::sqrt(static_cast<double>(c.key_width));
    args.nsa = c.nsa;
    args.nsa.select = count;
    args.selected = run->selected.view();
    args.scores = run->scores.view();
    ops.Select(*machine.stream, args);
    machine.stream->Synchronize();
  };
  Run run, reference;
  run.q = RandomOnGpu(gpu, "q", kQuery, {c.tokens, c.heads, c.key_width});
  run.k = RandomOnGpu(gpu, "k", kKey, {key_rows, c.groups, c.key_width});
  select(gpu, GpuOps(), Whole(c.tokens), &run, n);
  reference.q = Upload(cpu, "q", RandomRows(c.dtype, kQuery, c.segments, c.heads * c.key_width),
                       {CountRows(c.segments), c.heads, c.key_width});
  reference.k = Upload(cpu, "k", RandomRows(c.dtype, kKey, Whole(key_rows), c.groups * c.key_width),
                       {key_rows, c.groups, c.key_width});
  select(cpu, *cpu.ops->attention, c.segments, &reference, blocks);  // all: their scores

  const std::vector<double> all = Download(cpu, reference.scores.view());
  ChoiceCheck check(c.nsa);
  for (const Segment& sample : c.segments) {
    const std::vector<int32_t> chosen = DownloadInts(gpu, run.selected.view().Rows(sample.begin, sample.length));
    const std::vector<double> scores = DownloadValues(gpu, run.scores.view().Rows(sample.begin, sample.length));
    for (int64_t i = 0; i < sample.length * c.groups; ++i) {
      check.Add(sample.begin + i / c.groups, 0, &chosen[i * n], &scores[i * n],
                &all[(sample.row * c.groups + i) * blocks]);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  check.ExpectScores();
}

void ExpectSampledCombine(const BranchCase& c) {
  const Machine gpu = GpuMachine(c.dtype), cpu = CpuMachine(DType::kF64);
  struct Run {
    OwnedTensor gates, d_o, out, d_gates;
    std::array<OwnedTensor, 3> o;
  };
  const auto combine = [&](const Machine& machine, AttentionOps& ops, const std::vector<Segment>& segments) {
    const bool on_gpu = machine.device->kind() == DeviceKind::kGpu;
    const Shape shape{CountRows(segments), c.heads, c.value_width}, gate_shape{shape[0], c.heads, 3};
    const auto random = [&](const char* name, uint64_t seed, const Shape& dims) {
      return on_gpu ? RandomOnGpu(machine, name, seed, dims)
                    : Upload(machine, name, RandomRows(c.dtype, seed, segments, dims[1] * dims[2]), dims);
    };
    Run run;
    run.gates = random("gates", kGate, gate_shape);
    run.d_o = random("d_o", kOutputGradient, shape);
    run.out = OwnedTensor(machine, "o", machine.dtype, shape);
    run.d_gates = OwnedTensor(machine, "d_gates", on_gpu ? DType::kF32 : machine.dtype, gate_shape);
    for (int branch = 0; branch < 3; ++branch) {
      run.o[branch] = random(kBranchNames[branch], kBranchOutput + branch, shape);
    }
    const CombineArgs args{run.gates.view(), run.o[0].view(), run.o[1].view(), run.o[2].view(), run.out.view()};
    ops.Combine(*machine.stream, args);
    ops.CombineBackward(*machine.stream, args, {run.d_o.view(), run.d_gates.view()});
    machine.stream->Synchronize();
    return run;
  };
  const Run run = combine(gpu, GpuOps(), Whole(c.tokens)), reference = combine(cpu, *cpu.ops->attention, c.segments);
  const auto expect = [&](const char* name, const OwnedTensor& found, const OwnedTensor& expected) {
    EXPECT_TRUE(
        RmsClose(name, SampledRows(gpu, c.segments, found.view()), Download(cpu, expected.view()), Tolerance(c.dtype)));
    ExpectWritten(name, gpu, c.segments, found.view());
  };
  expect("o", run.out, reference.out);
  expect("d_gates", run.d_gates, reference.d_gates);
}

void ExpectSampledCompress(const CompressCase& c) {
  SCOPED_TRACE(fmt::format("{} phi {} S={} G={} W={}", DTypeName(c.dtype), static_cast<int>(c.phi), c.tokens, c.groups,
                           c.width));
  const Machine gpu = GpuMachine(c.dtype), cpu = CpuMachine(DType::kF64);
  const int64_t rows = c.tokens / c.stride, row_size = c.groups * c.width;
  std::vector<Segment> outputs, read;  // rows of y; stretches of x, one page of the reference's each
  std::vector<int32_t> table(rows, -1);
  for (const Segment& sample : c.segments) {
    const int64_t end = (sample.begin + sample.length) / c.stride;
    outputs.push_back({sample.begin / c.stride, sample.length / c.stride, sample.row / c.stride});
    for (int64_t page = std::max<int64_t>(0, (sample.begin + c.stride - c.block) / c.stride); page < end; ++page) {
      if (table[page] >= 0) continue;
      table[page] = static_cast<int32_t>(read.size());
      read.push_back({page * c.stride, c.stride, table[page] * c.stride});
    }
  }

  const std::vector<CompressInput> inputs = InputsOf(c);
  std::vector<OwnedTensor> in, gradients, cpu_in, cpu_gradients;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto& [name, shape, scale] = inputs[i];
    in.push_back(RandomOnGpu(gpu, name, kCompression + i, shape, scale));
    gradients.push_back(Started(gpu, "gradient", shape));
    Shape cpu_shape = shape;
    if (i == 0) cpu_shape[0] = CountRows(read);
    const std::vector<double> values =
        RandomRows(c.dtype, kCompression + i, i == 0 ? read : Whole(shape[0]), shape.count() / shape[0], scale);
    cpu_in.push_back(Upload(cpu, name, values, cpu_shape));
    cpu_gradients.push_back(ZerosOnCpu(cpu, "gradient", cpu_shape));
  }
  const std::vector<double> d_y = RandomRows(DType::kF32, kOutputGradient, outputs, row_size);
  const Shape shape{rows, c.groups, c.width}, cpu_shape{CountRows(outputs), c.groups, c.width};
  const OwnedTensor y(gpu, "y", c.dtype, shape), cpu_y(cpu, "y", cpu.dtype, cpu_shape);
  const OwnedTensor pages = Upload(gpu, "table", std::vector<int32_t>{0}, {1});
  const OwnedTensor cpu_pages = Upload(cpu, "table", table, {rows});
  const OwnedTensor given = ZeroButSampled(InF32(gpu), "d_y", outputs, d_y, shape);
  const OwnedTensor cpu_d_y = Upload(cpu, "d_y", d_y, cpu_shape);
  const auto run = [](const Machine& machine, AttentionOps& ops, const CompressArgs& args,
                      const CompressGradient& gradient) {
    ops.Compress(*machine.stream, args);
    ops.CompressBackward(*machine.stream, args, gradient);
    machine.stream->Synchronize();
  };
  run(gpu, GpuOps(),
      {Whole(c.tokens),
       in[0].view(),
       {pages.view(), c.tokens},
       c.phi,
       c.block,
       c.stride,
       WeightsOf(c.phi, in),
       y.view()},
      {given.view(), gradients[0].view(), WeightsOf(c.phi, gradients)});
  run(cpu, *cpu.ops->attention,
      {c.segments,
       cpu_in[0].view(),
       {cpu_pages.view(), c.stride},
       c.phi,
       c.block,
       c.stride,
       WeightsOf(c.phi, cpu_in),
       cpu_y.view()},
      {cpu_d_y.view(), cpu_gradients[0].view(), WeightsOf(c.phi, cpu_gradients)});

  EXPECT_TRUE(RmsClose("y", SampledRows(gpu, outputs, y.view()), Download(cpu, cpu_y.view()), Tolerance(c.dtype)));
  ExpectWritten("y", gpu, outputs, y.view());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::vector<double> found =
        i == 0 ? SampledRows(gpu, read, gradients[0].view()) : DownloadValues(gpu, gradients[i].view());
    EXPECT_TRUE(
        RmsClose("d_" + inputs[i].name, Added(found), Download(cpu, cpu_gradients[i].view()), Tolerance(c.dtype)));
  }
  ExpectUntouched("d_x", gpu, read, gradients[0].view());
}

}  // namespace longspan::test
