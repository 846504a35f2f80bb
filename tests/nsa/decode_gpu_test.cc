// Decoding with the kernels made for it: every position's output is that of the training forward, at every edge of
// blocks, strides, windows, splits and rings, for sequences of different lengths in one step; and a CUDA graph of one
// step, launched again and again, gives the bits that steps give by themselves.
#include <algorithm>
#include <memory>
#include <numeric>
#include <ostream>

#include "runtime/gpu.h"
#include "tests/nsa/gpu_library.h"
#include "tests/support/compare.h"

namespace longspan::test {
namespace {

struct Kind {
  const char* name;
  DType dtype;
  int64_t heads, groups, key_width, value_width;
  NsaConfig nsa;
  double rope_theta;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

NsaCase CaseOf(const Kind& kind, int64_t tokens) {
  NsaCase c;
  c.tokens = tokens;
  c.heads = kind.heads;
  c.groups = kind.groups;
  c.key_width = kind.key_width;
  c.value_width = kind.value_width;
  c.nsa = kind.nsa;
  c.nsa.phi_hidden = 64;
  c.rope_theta = kind.rope_theta;
  Randomize(c, 7);
  for (auto& [name, values] : c.in.Named()) *values = Rounded(*values, kind.dtype);
  return c;
}

bool Shared(const NsaCase& c) { return c.nsa.kv_branches == KvBranches::kShared; }

// Values, outputs and choices of a step's rows, gathered from the sequences' positions, on the stream of the test.
class StepMemory {
 public:
  StepMemory(const NsaCase& c, const DeviceValues& values, int64_t rows) : case_(c), values_(values) {
    const Machine& machine = values.machine;
    q = OwnedTensor(machine, "q", machine.dtype, {rows, c.heads, c.key_width});
    gates = OwnedTensor(machine, "gates", machine.dtype, {rows, c.heads, 3});
    for (int branch = 0; branch < (Shared(c) ? 1 : 3); ++branch) {
      k[branch] = OwnedTensor(machine, "k", machine.dtype, {rows, c.groups, c.key_width});
      v[branch] = OwnedTensor(machine, "v", machine.dtype, {rows, c.groups, c.value_width});
    }
    out = OwnedTensor(machine, "out", machine.dtype, {rows, c.heads, c.value_width});
    selected = OwnedTensor(machine, "selected", DType::kI32, {rows, c.groups, c.nsa.select});
  }

  // Rows row .. row+count-1 become those of positions position ..
  void Take(int64_t row, int64_t position, int64_t count) const {
    const auto copy = [&](const OwnedTensor& to, const OwnedTensor& from) {
      values_.machine.device->Copy(*values_.machine.stream, to.view().Rows(row, count),
                                   from.view().Rows(position, count));
    };
    copy(q, values_.q);
    copy(gates, values_.gates);
    for (int branch = 0; branch < (Shared(case_) ? 1 : 3); ++branch) {
      copy(k[branch], values_.k[branch]);
      copy(v[branch], values_.v[branch]);
    }
  }
  void Poison() const {
    for (const OwnedTensor* x : {&out, &selected}) {
      values_.machine.device->FillBytes(*values_.machine.stream, x->view(), 0xFF);
    }
  }
  template <typename Step>
  void Point(Step* step) const {
    step->q = q.view().data;
    step->gates = gates.view().data;
    for (int branch = 0; branch < 3; ++branch) {
      step->k[branch] = k[branch].view().data;
      step->v[branch] = v[branch].view().data;
    }
    step->out = out.view().data;
    step->selected = static_cast<int32_t*>(selected.view().data);
  }

  OwnedTensor q, gates, out, selected;
  std::array<OwnedTensor, 3> k, v;

 private:
  const NsaCase& case_;
  const DeviceValues& values_;
};

class DecodeOnGpu : public testing::TestWithParam<Kind> {
 protected:
  static constexpr int32_t kSequences = 4;

  void Start(int64_t tokens) {
    case_ = CaseOf(GetParam(), tokens);
    values_ = std::make_unique<DeviceValues>(case_, GetParam().dtype);
    library_ = std::make_unique<Library>(case_, OnGpu(case_, GetParam().dtype));
    stream_ = CudaStream(*values_->machine.stream);
    const auto blocks = static_cast<int32_t>(case_.blocks());
    std::vector<int32_t> pages(int64_t{kSequences} * blocks);
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>((i * 7 + 3) % pages.size());
    if (pages.size() % 7 == 0) std::iota(pages.rbegin(), pages.rend(), 0);
    table_ = Upload(values_->machine, "pages", pages, {kSequences, blocks});
    values_->machine.stream->Synchronize();
  }
  NSACache NewCache() {
    NSACache cache;
    EXPECT_NSA(nsa_cache_init(library_->get(), &cache, kSequences * static_cast<int32_t>(case_.blocks())));
    return cache;
  }
  const int32_t* Table(int64_t sequence) const {
    return static_cast<const int32_t*>(table_.view().Rows(sequence, 1).data);
  }

  void Prefill(NSACache* cache, int32_t sequence, int64_t tokens) {
    const Machine& machine = values_->machine;
    NSAInputs inputs = values_->call;
    inputs.tokens = tokens;
    const OwnedTensor out(machine, "out", machine.dtype, {tokens, case_.heads, case_.value_width}),
        saved = values_->Bytes("saved", nsa_saved_size(library_->get(), tokens));
    const NSAOutputs outputs = {out.view().data, saved.view().data, nullptr};
    ASSERT_NSA(nsa_prefill(library_->get(), cache, sequence, &inputs, Table(sequence), &outputs, stream_));
    machine.stream->Synchronize();
  }

  NsaCase case_;
  std::unique_ptr<DeviceValues> values_;
  std::unique_ptr<Library> library_;
  cudaStream_t stream_ = nullptr;
  OwnedTensor table_;
};

// What the training forward says: the CPU's for F32, the GPU's for BF16, which is compared with the CPU's elsewhere.
struct Expected {
  Array out;
  std::vector<int32_t> selected;
};

Expected Forward(const NsaCase& c, DType dtype, Library& library, const DeviceValues& values) {
  if (dtype == DType::kF32) {
    Library cpu(c, NSA_FLOAT32);
    const Values<float> on_host(c);
    const auto found = RunForward<float>(cpu, c, on_host.call);
    return {Doubles(found.out), found.selected};
  }
  const OwnedTensor saved = values.Bytes("saved", nsa_saved_size(library.get(), c.tokens));
  const NSAOutputs outputs = {values.out.view().data, saved.view().data,
                              static_cast<int32_t*>(values.selected.view().data)};
  EXPECT_NSA(nsa_forward(library.get(), &values.call, &outputs, CudaStream(*values.machine.stream)));
  return {DownloadValues(values.machine, values.out.view()), DownloadInts(values.machine, values.selected.view())};
}

// Sequences that begin at every edge, of one to 16 new tokens a step. A near tie may fall otherwise where compressed
// keys were rounded otherwise: such positions are few, and their outputs are not compared.
TEST_P(DecodeOnGpu, IsTheTrainingForward) {
  Start(1250);
  const NsaCase& c = case_;
  const bool bf16 = GetParam().dtype == DType::kBf16;
  const Expected expected = Forward(c, GetParam().dtype, *library_, *values_);
  NSACache cache = NewCache();
  const StepMemory memory(c, *values_, int64_t{kSequences} * NSA_MAX_NEW_TOKENS);
  const int64_t out_row = c.heads * c.value_width, choices = c.groups * c.nsa.select;
  int64_t compared = 0, others = 0;
  Array found_all, expected_all;
  const std::vector<int64_t> edges = {0, 30, 31, 46, 47, 62, 63, 64, 126, 255, 510, 511, 512, 526, 1022, 1100};
  for (size_t first = 0; first < edges.size(); first += kSequences) {
    std::vector<int64_t> lengths;
    for (int32_t i = 0; i < kSequences; ++i) {
      lengths.push_back(edges[first + i]);
      if (lengths.back() > 0) Prefill(&cache, i, lengths.back());
    }
    for (int round = 0; round < 12; ++round) {
      std::vector<int32_t> counts, numbers;
      int64_t rows = 0;
      memory.Poison();
      for (int32_t i = 0; i < kSequences; ++i) {
        numbers.push_back(kSequences - 1 - i);
        counts.push_back(round < 4 ? 1 : 1 + (round * 5 + i * 3) % 16);
        counts.back() = static_cast<int32_t>(std::min<int64_t>(counts.back(), c.tokens - lengths[numbers.back()]));
        memory.Take(rows, lengths[numbers.back()], counts.back());
        rows += counts.back();
      }
      std::vector<int64_t> before;
      for (const int32_t number : numbers) before.push_back(lengths[number]);
      std::vector<int32_t> table;
      for (const int32_t number : numbers) {
        const auto row = DownloadInts(values_->machine, table_.view().Rows(number, 1));
        table.insert(table.end(), row.begin(), row.end());
      }
      const OwnedTensor rows_of_table = Upload(values_->machine, "table", table, table_.view().shape);
      NSADecodeStep step = {};
      step.num_sequences = kSequences;
      step.sequences = numbers.data();
      step.lengths = before.data();
      step.new_tokens = counts.data();
      step.page_table = static_cast<const int32_t*>(rows_of_table.view().data);
      step.page_table_width = static_cast<int32_t>(c.blocks());
      memory.Point(&step);
      ASSERT_NSA(nsa_decode(library_->get(), &cache, &step, stream_));
      const Array out = DownloadValues(values_->machine, memory.out.view().Rows(0, rows));
      const std::vector<int32_t> selected = DownloadInts(values_->machine, memory.selected.view().Rows(0, rows));
      int64_t row = 0;
      for (int32_t i = 0; i < kSequences; ++i) {
        for (int32_t j = 0; j < counts[i]; ++j, ++row) {
          const int64_t position = before[i] + j;
          ++compared;
          if (!std::equal(selected.begin() + row * choices, selected.begin() + (row + 1) * choices,
                          expected.selected.begin() + position * choices)) {
            ++others;
            continue;
          }
          const Array one(out.begin() + row * out_row, out.begin() + (row + 1) * out_row),
              right(expected.out.begin() + position * out_row, expected.out.begin() + (position + 1) * out_row);
          ASSERT_TRUE(RmsClose("out", one, right, bf16 ? 0.01 : 2e-5)) << "at position " << position;
          found_all.insert(found_all.end(), one.begin(), one.end());
          expected_all.insert(expected_all.end(), right.begin(), right.end());
        }
        lengths[numbers[i]] += counts[i];
      }
    }
  }
  EXPECT_TRUE(RmsClose("out", found_all, expected_all, bf16 ? 0.005 : 1e-5));
  EXPECT_LE(others, bf16 ? compared / 100 : 0) << "other blocks chosen than training does, of " << compared;
  RecordProperty("other_choices", static_cast<int>(others));
  nsa_cache_free(&cache);
}

TEST_P(DecodeOnGpu, GraphIsItsSteps) {
  Start(760);
  const NsaCase& c = case_;
  constexpr int kLaunches = 60, kCount = 3;
  const std::vector<int32_t> begin = {1, 500, 29, 570};
  const int64_t rows = int64_t{kSequences} * kCount;
  const StepMemory memory(c, *values_, rows);
  NSACache plain = NewCache(), captured = NewCache();
  for (int32_t i = 0; i < kSequences; ++i) {
    for (NSACache* cache : {&plain, &captured}) Prefill(cache, i, begin[i]);
  }
  const auto take = [&](int launch) {
    for (int32_t i = 0; i < kSequences; ++i) memory.Take(i * kCount, begin[i] + launch * kCount, kCount);
    memory.Poison();
  };
  const auto results = [&] {
    return std::pair(DownloadValues(values_->machine, memory.out.view()),
                     DownloadInts(values_->machine, memory.selected.view()));
  };
  std::vector<decltype(results())> expected;
  const std::vector<int32_t> counts(kSequences, kCount);
  for (int launch = 0; launch < kLaunches; ++launch) {
    take(launch);
    std::vector<int64_t> lengths;
    for (const int32_t length : begin) lengths.push_back(length + launch * kCount);
    NSADecodeStep step = {};
    step.num_sequences = kSequences;
    step.lengths = lengths.data();
    step.new_tokens = counts.data();
    step.page_table = Table(0);
    step.page_table_width = static_cast<int32_t>(c.blocks());
    memory.Point(&step);
    ASSERT_NSA(nsa_decode(library_->get(), &plain, &step, stream_));
    expected.push_back(results());
  }

  const OwnedTensor lengths = Upload(values_->machine, "lengths", begin, {kSequences});
  NSADeviceStep step = {};
  step.num_sequences = kSequences;
  step.new_tokens = kCount;
  step.lengths = static_cast<int32_t*>(lengths.view().data);
  step.page_table = Table(0);
  step.page_table_width = static_cast<int32_t>(c.blocks());
  memory.Point(&step);
  take(0);
  ASSERT_NSA(nsa_decode_device(library_->get(), &captured, &step, stream_));
  EXPECT_TRUE(BitEqual("out", results().first, expected[0].first));
  const auto graph = values_->machine.device->Capture(
      *values_->machine.stream, [&] { ASSERT_NSA(nsa_decode_device(library_->get(), &captured, &step, stream_)); });
  for (int launch = 1; launch < kLaunches; ++launch) {
    take(launch);
    graph->Launch();
    const auto found = results();
    ASSERT_TRUE(BitEqual("selected", found.second, expected[launch].second)) << "launch " << launch;
    ASSERT_TRUE(BitEqual("out", found.first, expected[launch].first)) << "launch " << launch;
  }
  for (NSACache* cache : {&plain, &captured}) nsa_cache_free(cache);
}

NsaConfig Phis(Phi phi, KvBranches branches) {
  NsaConfig nsa;
  nsa.phi = phi;
  nsa.kv_branches = branches;
  return nsa;
}

// A compressed token begins at every token: three splits of them, and two of the window and of the chosen blocks.
NsaConfig Dense() {
  NsaConfig nsa = Phis(Phi::kMlp, KvBranches::kSeparate);
  nsa.block = 4;
  nsa.stride = 1;
  nsa.select_block = 16;
  nsa.select = 40;
  nsa.init = 2;
  nsa.local = 0;
  nsa.window = 700;
  return nsa;
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, DecodeOnGpu,
    testing::Values(Kind{"Bf16", DType::kBf16, 32, 2, 128, 128, Phis(Phi::kMlp, KvBranches::kSeparate), 100},
                    Kind{"Bf16Narrow", DType::kBf16, 8, 4, 64, 40, Phis(Phi::kLinear, KvBranches::kShared), 100},
                    Kind{"Bf16Wide", DType::kBf16, 24, 1, 192, 128, Phis(Phi::kMean, KvBranches::kSeparate), 0},
                    Kind{"Bf16Dense", DType::kBf16, 16, 2, 64, 64, Dense(), 0},
                    Kind{"F32", DType::kF32, 16, 2, 128, 128, Phis(Phi::kMlp, KvBranches::kSeparate), 100},
                    Kind{"F32Narrow", DType::kF32, 6, 2, 24, 16, Phis(Phi::kLinear, KvBranches::kSeparate), 100},
                    Kind{"F32Wide", DType::kF32, 34, 1, 192, 128, Phis(Phi::kMean, KvBranches::kShared), 0},
                    Kind{"F32Dense", DType::kF32, 4, 2, 32, 32, Dense(), 100}),
    [](const testing::TestParamInfo<Kind>& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return longspan::GpuCount() == 0 ? 77 : RUN_ALL_TESTS();
}
