// Documents packed into one sequence are separate sequences: outputs, choices and gradients of each.
#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_run.h"

namespace longspan::test {
namespace {

// Lengths below l, below and above b, and a long last one; b = 64 pads them.
const std::vector<int64_t> kLengths = {65, 15, 63, 64, 1, 31, 32, 200, 33, 70};

NsaCase Packed(const std::vector<int64_t>& lengths, Phi phi, KvBranches branches) {
  NsaCase c{.heads = 4, .groups = 2, .key_width = 4, .value_width = 3};
  c.nsa = {.select = 3, .window = 40, .phi = phi, .phi_hidden = 4};
  c.nsa.kv_branches = branches;
  c.rope_theta = branches == KvBranches::kSeparate ? 1000 : 0;
  c.doc_start = PackDocuments(lengths, c.nsa.select_block);
  c.tokens = static_cast<int64_t>(c.doc_start.size());
  Randomize(c, 31);
  return c;
}

Array Slice(const Array& x, int64_t rows, int64_t begin, int64_t length) {
  const int64_t width = static_cast<int64_t>(x.size()) / rows;
  return {x.begin() + begin * width, x.begin() + (begin + length) * width};
}

// Tokens [begin, begin+length) as a sequence of their own.
NsaCase Alone(const NsaCase& c, int64_t begin, int64_t length) {
  NsaCase part = c;
  part.tokens = length;
  part.doc_start.clear();
  for (auto& [name, values] : part.in.Named()) {
    if (!name.starts_with("phi")) *values = Slice(*values, c.tokens, begin, length);
  }
  part.d_out = Slice(c.d_out, c.tokens, begin, length);
  return part;
}

class Documents : public ::testing::TestWithParam<std::tuple<Phi, KvBranches>> {};

TEST_P(Documents, AreSeparateSequences) {
  const auto [phi, branches] = GetParam();
  NsaCase c = Packed(kLengths, phi, branches);
  // Padding carries no loss, so that every document's gradient is its own alone.
  std::vector<std::pair<int64_t, int64_t>> documents;  // begin, length
  for (int64_t begin = 0; int64_t length : kLengths) {
    documents.emplace_back(begin, length);
    const int64_t end = std::min(c.tokens, begin + (length + 63) / 64 * 64);
    std::fill(c.d_out.begin() + (begin + length) * c.heads * c.value_width,
              c.d_out.begin() + end * c.heads * c.value_width, 0.0);
    begin = end;
  }
  NsaResult packed = RunBoth(CpuMachine(DType::kF64), c);
  std::vector<Array> weight_sums;
  for (auto [begin, length] : documents) {
    SCOPED_TRACE(testing::Message() << "document of " << length << " tokens at " << begin);
    NsaResult alone = RunBoth(CpuMachine(DType::kF64), Alone(c, begin, length));
    auto slice = [&](const Array& x) { return Slice(x, c.tokens, begin, length); };
    EXPECT_TRUE(RmsClose("out", slice(packed.outputs.out), alone.outputs.out, 1e-12));
    EXPECT_TRUE(RmsClose("scores", slice(packed.outputs.scores), alone.outputs.scores, 1e-12));
    for (int branch : {kCmp, kSlc, kWin}) {
      EXPECT_TRUE(RmsClose("lse", slice(packed.outputs.lse[branch]), alone.outputs.lse[branch], 1e-12));
    }
    const int64_t width = c.groups * c.nsa.select;
    std::vector<int32_t> chosen(packed.outputs.selected.begin() + begin * width,
                                packed.outputs.selected.begin() + (begin + length) * width);
    for (int32_t& block : chosen) block -= block < 0 ? 0 : static_cast<int32_t>(begin / c.nsa.select_block);
    EXPECT_TRUE(BitEqual("selected", chosen, alone.outputs.selected));
    auto found = packed.gradients.Named(), expected = alone.gradients.Named();
    weight_sums.resize(found.size());
    for (size_t a = 0; a < found.size(); ++a) {
      const Array& own = *expected[a].second;
      if (found[a].first.starts_with("phi")) {
        weight_sums[a].resize(own.size(), 0.0);
        for (size_t i = 0; i < own.size(); ++i) weight_sums[a][i] += own[i];
      } else {
        EXPECT_TRUE(RmsClose("d_" + found[a].first, slice(*found[a].second), own, 1e-12, 1));
      }
    }
  }
  auto found = packed.gradients.Named();
  std::vector<const Array*> all;
  for (auto& [name, values] : found) all.push_back(values);
  for (size_t a = 0; a < found.size(); ++a) {
    if (weight_sums[a].empty()) continue;
    EXPECT_TRUE(RmsClose("d_" + found[a].first, *found[a].second, weight_sums[a], 1e-12, GradientFloor(all)));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Documents,
                         ::testing::Combine(::testing::Values(Phi::kMlp, Phi::kLinear, Phi::kMean),
                                            ::testing::Values(KvBranches::kSeparate, KvBranches::kShared)));

// Positions are the same, so even the bits are.
TEST(FirstDocument, AloneIsBitIdentical) {
  for (DType dtype : {DType::kF32, DType::kF64}) {
    const NsaCase c = Packed({150, 40, 64}, Phi::kMlp, KvBranches::kSeparate);
    const NsaOutputs packed = RunForward(CpuMachine(dtype), c);
    const NsaOutputs alone = RunForward(CpuMachine(dtype), Alone(c, 0, 150));
    EXPECT_TRUE(BitEqual("out", Slice(packed.out, c.tokens, 0, 150), alone.out));
    EXPECT_TRUE(BitEqual("scores", Slice(packed.scores, c.tokens, 0, 150), alone.scores));
  }
}

TEST(SecondDocument, DoesNotFeelTheFirst) {
  for (DType dtype : {DType::kF32, DType::kF64}) {
    const NsaCase c = Packed({100, 90}, Phi::kLinear, KvBranches::kShared);
    NsaCase changed = c;
    for (auto& [name, values] : changed.in.Named()) {
      if (name.starts_with("phi")) continue;
      for (size_t i = 0; i < values->size() / c.tokens * 128; ++i) (*values)[i] = 2 - 3 * (*values)[i];
    }
    const NsaOutputs a = RunForward(CpuMachine(dtype), c), b = RunForward(CpuMachine(dtype), changed);
    EXPECT_TRUE(BitEqual("out", Slice(b.out, c.tokens, 128, 90), Slice(a.out, c.tokens, 128, 90)));
    EXPECT_TRUE(BitEqual("scores", Slice(b.scores, c.tokens, 128, 90), Slice(a.scores, c.tokens, 128, 90)));
  }
}

// A null doc_start and one of zeros are the same.
TEST(OneDocument, NullMeansZeros) {
  NsaCase c = Packed({130}, Phi::kMean, KvBranches::kShared);
  const NsaOutputs zeros = RunForward(CpuMachine(DType::kF32), c);
  c.doc_start.clear();
  EXPECT_TRUE(BitEqual("out", RunForward(CpuMachine(DType::kF32), c).out, zeros.out));
}

}  // namespace
}  // namespace longspan::test
