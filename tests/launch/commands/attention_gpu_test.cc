// The program `longspan attention --device gpu` against `--device cpu`: on one rank, and on two and four that share the
// GPUs where these are fewer. The choice of blocks is the CPU's, so that numbers are compared and not near ties; free
// choices are tested apart. Every case is run twice on one and on two ranks and must give the same bits.
#include <algorithm>

#include "tests/launch/commands/attention_case_file.h"
#include "tests/support/gpu_sides.h"
#include "tests/support/program.h"

namespace longspan::test {
namespace {

struct Variant {
  const char* name;
  DType dtype;
  Phi phi;
  bool shared = false;
  bool documents = false;
  double gradient = 1e-5;           // allowed against the CPU
  std::set<std::string> zero = {};  // gradients that are zero in exact arithmetic
};

// In BF16 every gradient is one that exact arithmetic does not make zero: summaries are rotated, or have no weights.
// The CPU does not round the summaries, whose weights then differ: rounding them, o and d_o to BF16 and nothing else
// moves d_q, d_k_cmp and d_phi_k by 0.0057 of their RMS with MLP, by 0.0046 with LINEAR, by 0.0024 with MEAN.
std::vector<Variant> Variants() {
  using enum DType;
  return {{.name = "mlp_documents_f32", .dtype = kF32, .phi = Phi::kMlp, .documents = true},
          {.name = "linear_f32", .dtype = kF32, .phi = Phi::kLinear},
          {.name = "shared_mlp_f32", .dtype = kF32, .phi = Phi::kMlp, .shared = true, .zero = {"d_phi_k.bias2"}},
          {.name = "shared_mean_documents_f32", .dtype = kF32, .phi = Phi::kMean, .shared = true, .documents = true},
          {.name = "mlp_documents_bf16", .dtype = kBf16, .phi = Phi::kMlp, .documents = true, .gradient = 0.01},
          {.name = "linear_bf16", .dtype = kBf16, .phi = Phi::kLinear, .gradient = 0.01},
          {.name = "shared_mean_documents_bf16",
           .dtype = kBf16,
           .phi = Phi::kMean,
           .shared = true,
           .documents = true,
           .gradient = 0.005}};
}

// No chunk length of 2 or 4 ranks divides the sequence.
NsaCase MakeCase(const Variant& variant) {
  NsaCase c;
  c.tokens = 605;
  c.heads = 8;
  c.groups = 2;
  c.key_width = 32;
  c.value_width = 40;
  c.nsa = {.block = 16, .stride = 8, .select_block = 32, .select = 6, .window = 70, .phi = variant.phi};
  if (variant.shared) {
    c.nsa.kv_branches = KvBranches::kShared;
    c.nsa.compress_rope = CompressRope::kBefore;
  } else {
    c.rope_theta = 100;
  }
  if (variant.documents) {
    c.doc_start = PackDocuments({250, 3, 90, 210}, c.nsa.select_block);
    c.tokens = static_cast<int64_t>(c.doc_start.size());
  }
  Randomize(c, 7);
  return c;
}

class AttentionGpu : public testing::TestWithParam<Variant> {
 protected:
  // The result of the case in folder_/input.
  SafetensorsFile Run(const std::string& input, int ranks, const std::string& options) {
    const std::string output = folder_ / fmt::format("out{}", runs_++);
    std::string said;
    const int code = RunProgram(
        folder_, ranks, fmt::format("attention --case '{}' --out '{}' {}", folder_ / input, output, options), &said);
    if (code != 0) throw std::runtime_error(fmt::format("{} ranks, {}: exit code {}: {}", ranks, options, code, said));
    return SafetensorsFile::Open(output);
  }

  double Tolerance() const { return GetParam().dtype == DType::kBf16 ? 0.005 : 1e-5; }

  void ExpectClose(const std::string& what, const SafetensorsFile& found, const SafetensorsFile& expected,
                   double gradient) {
    SCOPED_TRACE(what);
    ASSERT_EQ(found.names(), expected.names());
    for (const std::string& name : expected.names()) {
      if (name == "selected") {
        EXPECT_TRUE(BitEqual(name, Get(found, name), Get(expected, name)));
      } else if (!IsGradient(name)) {
        EXPECT_TRUE(RmsClose(name, Get(found, name), Get(expected, name), Tolerance()));
      }
    }
    ExpectGradients(found, expected, gradient, GetParam().zero);
  }

  TempFolder folder_;
  int runs_ = 0;
};

TEST_P(AttentionGpu, EqualsCpuOnAnyNumberOfRanks) {
  const NsaCase c = MakeCase(GetParam());
  SCOPED_TRACE(Describe(c));
  CaseFile file(c, GetParam().dtype);
  file.Write(folder_ / "free");
  const Array chosen = Get(Run("free", 1, "--device cpu"), "selected");
  file.Freeze(c, {chosen.begin(), chosen.end()});
  file.Write(folder_ / "frozen");

  const SafetensorsFile cpu = Run("frozen", 1, "--device cpu");
  const SafetensorsFile one = Run("frozen", 1, "--device gpu");
  ExpectClose("GPU on 1 rank against CPU", one, cpu, GetParam().gradient);
  EXPECT_TRUE(SameBits(Run("frozen", 1, "--device gpu"), one)) << "1 rank, a second run";
  const SafetensorsFile two = Run("frozen", 2, "--device gpu --share-gpu");
  ExpectClose("GPU on 2 ranks against CPU", two, cpu, GetParam().gradient);
  ExpectClose("GPU on 2 ranks against 1", two, one, Tolerance());
  EXPECT_TRUE(SameBits(Run("frozen", 2, "--device gpu --share-gpu"), two)) << "2 ranks, a second run";
  const SafetensorsFile four =
      Run("frozen", 4, "--device gpu --share-gpu --layout CONTIGUOUS --selected-exchange FETCH");
  ExpectClose("GPU on 4 ranks, other layout and exchange, against CPU", four, cpu, GetParam().gradient);
}

// The rules of the choice hold exactly; in F32 nearly all choices are the CPU's, and on two ranks as on one.
TEST_P(AttentionGpu, ChoosesBlocksAsTheCpu) {
  const NsaCase c = MakeCase(GetParam());
  SCOPED_TRACE(Describe(c));
  CaseFile file(c, GetParam().dtype);
  file.tensors.erase("d_out");
  file.Write(folder_ / "free");
  const Array cpu = Get(Run("free", 1, "--device cpu"), "selected");
  const Array gpu = Get(Run("free", 1, "--device gpu"), "selected");
  const int64_t n = c.nsa.select, rows = c.tokens * c.groups;
  ASSERT_EQ(std::ssize(gpu), rows * n);

  int64_t equal = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const auto begin = gpu.begin() + row * n;
    const int64_t t = row / c.groups, first = c.DocStart(t) / c.nsa.select_block, own = t / c.nsa.select_block;
    const auto end = begin + std::min(n, own - first + 1);
    SCOPED_TRACE(fmt::format("query {}, group {}", t, row % c.groups));
    ASSERT_TRUE(std::all_of(end, begin + n, [](double block) { return block == -1; }));
    ASSERT_TRUE(std::adjacent_find(begin, end, std::greater_equal<>()) == end) << "not ascending";
    ASSERT_TRUE(*begin >= static_cast<double>(first) && *(end - 1) <= static_cast<double>(own)) << "not visible";
    for (int64_t block = first; block <= own; ++block) {
      if (block < first + c.nsa.init || block > own - c.nsa.local) {
        ASSERT_TRUE(std::binary_search(begin, end, block)) << "lacks block " << block;
      }
    }
    if (std::equal(begin, begin + n, cpu.begin() + row * n)) ++equal;
  }
  const double share = static_cast<double>(equal) / static_cast<double>(rows);
  EXPECT_GE(share, GetParam().dtype == DType::kF32 ? 0.99 : 0.8) << "of " << rows << " choices";

  const Array two = Get(Run("free", 2, "--device gpu --share-gpu"), "selected");
  EXPECT_TRUE(BitEqual("selected on 2 ranks", two, gpu));
}

INSTANTIATE_TEST_SUITE_P(Variants, AttentionGpu, testing::ValuesIn(Variants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) { return longspan::test::RunGpuTests(argc, argv); }
