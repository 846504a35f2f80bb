// Where queries and key rows lie in memory, and which queries are in the call, changes nothing but the gradients' sums.
#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_run.h"

namespace longspan::test {
namespace {

constexpr int64_t kTokens = 192;

NsaCase Case(Phi phi, KvBranches branches) {
  NsaCase c{.tokens = kTokens, .heads = 4, .groups = 2, .key_width = 6, .value_width = 5};
  c.nsa = {.block = 8, .stride = 4, .select_block = 16, .select = 4, .window = 21, .phi = phi};
  c.nsa.kv_branches = branches;
  c.rope_theta = branches == KvBranches::kSeparate ? 100 : 0;
  c.doc_start = PackDocuments({50, 15, 112}, 16);  // start at 0, 64, 80
  Randomize(c, 41);
  return c;
}

std::vector<NsaCase> Cases() {
  return {Case(Phi::kMlp, KvBranches::kSeparate), Case(Phi::kLinear, KvBranches::kShared),
          Case(Phi::kMean, KvBranches::kSeparate)};
}

void ExpectSameForward(const NsaOutputs& found, const NsaOutputs& expected) {
  EXPECT_TRUE(BitEqual("selected", found.selected, expected.selected));
  EXPECT_TRUE(BitEqual("scores", found.scores, expected.scores));
  EXPECT_TRUE(BitEqual("out", found.out, expected.out));
  for (int branch : {kCmp, kSlc, kWin}) {
    EXPECT_TRUE(BitEqual(kBranchNames[branch], found.o[branch], expected.o[branch]));
    EXPECT_TRUE(BitEqual(kBranchNames[branch], found.lse[branch], expected.lse[branch]));
  }
}

void ExpectSameGradients(NsaArrays found, NsaArrays expected, double tolerance) {
  auto a = found.Named(), b = expected.Named();
  ASSERT_EQ(a.size(), b.size());
  std::vector<const Array*> all;
  for (auto& [name, values] : b) all.push_back(values);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(RmsClose("d_" + a[i].first, *a[i].second, *b[i].second, tolerance, GradientFloor(all)));
  }
}

TEST(Placement, KeyRowsInAnyOrder) {
  for (DType dtype : {DType::kF32, DType::kF64}) {
    for (const NsaCase& c : Cases()) {
      const NsaResult straight = RunBoth(CpuMachine(dtype), c, nullptr, {});
      // Pages of b tokens and of four blocks, backwards and mixed, with slots left empty (NaN).
      for (const Placement& placement :
           {Placement{{}, 16, {11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}}, Placement{{}, 64, {3, 0, 1}},
            Placement{{}, 16, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}}}) {
        const NsaResult paged = RunBoth(CpuMachine(dtype), c, nullptr, placement);
        ExpectSameForward(paged.outputs, straight.outputs);
        ExpectSameGradients(paged.gradients, straight.gradients, dtype == DType::kF64 ? 1e-12 : 1e-5);
      }
    }
  }
}

TEST(Placement, QueriesInAnyOrder) {
  for (const NsaCase& c : Cases()) {
    const NsaResult straight = RunBoth(CpuMachine(DType::kF64), c, nullptr, {});
    const NsaResult mixed =
        RunBoth(CpuMachine(DType::kF64), c, nullptr, {{{0, 48, 144}, {48, 96, 0}, {144, 48, 96}}, 0, {}});
    ExpectSameForward(mixed.outputs, straight.outputs);
    ExpectSameGradients(mixed.gradients, straight.gradients, 1e-12);
  }
}

// As two ranks of a head-tail layout, both with all key rows: together they are the whole.
TEST(Placement, QueriesInPartsAddUp) {
  for (DType dtype : {DType::kF32, DType::kF64}) {
    for (const NsaCase& c : Cases()) {
      const NsaResult whole = RunBoth(CpuMachine(dtype), c, nullptr, {});
      NsaResult a = RunBoth(CpuMachine(dtype), c, nullptr, {{{0, 48, 0}, {144, 48, 48}}, 48, {0, 2, 3, 1}});
      NsaResult b = RunBoth(CpuMachine(dtype), c, nullptr, {{{48, 96, 0}}, 48, {0, 2, 3, 1}});
      // The attention of each query is its own; rows that a part does not hold are NaN (selected: -2).
      for (auto [mine, theirs] :
           {std::pair(&a.outputs.out, &b.outputs.out), std::pair(&a.outputs.scores, &b.outputs.scores),
            std::pair(&a.outputs.lse[kCmp], &b.outputs.lse[kCmp]),
            std::pair(&a.outputs.lse[kSlc], &b.outputs.lse[kSlc]),
            std::pair(&a.outputs.lse[kWin], &b.outputs.lse[kWin]), std::pair(&a.outputs.o[kCmp], &b.outputs.o[kCmp]),
            std::pair(&a.outputs.o[kSlc], &b.outputs.o[kSlc]), std::pair(&a.outputs.o[kWin], &b.outputs.o[kWin])}) {
        const size_t width = mine->size() / kTokens;
        std::copy(theirs->begin() + 48 * width, theirs->begin() + 144 * width, mine->begin() + 48 * width);
      }
      const size_t width = a.outputs.selected.size() / kTokens;
      std::copy(b.outputs.selected.begin() + 48 * width, b.outputs.selected.begin() + 144 * width,
                a.outputs.selected.begin() + 48 * width);
      ExpectSameForward(a.outputs, whole.outputs);
      auto sum = a.gradients.Named(), part = b.gradients.Named();
      for (size_t i = 0; i < sum.size(); ++i) {
        for (size_t k = 0; k < sum[i].second->size(); ++k) (*sum[i].second)[k] += (*part[i].second)[k];
      }
      // Some gradients are zero in exact arithmetic; what fp32 leaves of them depends on the order of the sum.
      if (dtype == DType::kF64) ExpectSameGradients(a.gradients, whole.gradients, 1e-12);
    }
  }
}

// Decoding: a few queries at odd places.
TEST(Placement, SingleQueries) {
  const NsaCase c = Case(Phi::kMlp, KvBranches::kSeparate);
  const NsaOutputs whole = RunForward(CpuMachine(DType::kF32), c);
  NsaOperator few(CpuMachine(DType::kF32), c, {{{191, 1, 0}, {0, 1, 1}, {77, 3, 2}, {130, 1, 5}}, 0, {}});
  few.Forward();
  const NsaOutputs y = few.Outputs();
  const size_t width = whole.out.size() / kTokens;
  for (size_t t : {191, 0, 77, 78, 79, 130}) {
    auto row = [&](const Array& x) { return Array(x.begin() + t * width, x.begin() + (t + 1) * width); };
    EXPECT_TRUE(BitEqual("out", row(y.out), row(whole.out))) << "t = " << t;
  }
}

int64_t Hash(const std::vector<int32_t>& selected, int64_t width, const std::vector<Segment>& segments) {
  const Machine machine = CpuMachine(DType::kF32);
  std::vector<int32_t> local;
  for (const Segment& segment : segments) {
    const auto begin = selected.begin() + segment.begin * width;
    local.insert(local.end(), begin, begin + segment.length * width);
  }
  const OwnedTensor choice = Upload(machine, "selected", local, {static_cast<int64_t>(local.size()) / width, 1, width});
  const OwnedTensor hash(machine, "hash", DType::kI64, {1});
  machine.ops->attention->HashSelection(*machine.stream, {segments, choice.view(), hash.view()});
  int64_t value = 0;
  machine.device->Copy(*machine.stream, HostView(&value, {1}), hash.view());
  machine.stream->Synchronize();
  return value;
}

// The hash of a selection is the sum of its parts' (mod 2^64), and feels any change.
TEST(Placement, HashesAddUp) {
  const NsaCase c = Case(Phi::kMean, KvBranches::kSeparate);
  std::vector<int32_t> selected = RunForward(CpuMachine(DType::kF32), c).selected;
  const int64_t width = c.groups * c.nsa.select;
  const int64_t whole = Hash(selected, width, {{0, kTokens, 0}});
  const auto a = static_cast<uint64_t>(Hash(selected, width, {{0, 48, 0}, {144, 48, 48}}));
  const auto b = static_cast<uint64_t>(Hash(selected, width, {{48, 96, 0}}));
  EXPECT_EQ(static_cast<uint64_t>(whole), a + b);
  selected[50 * width] += 1;
  EXPECT_NE(whole, Hash(selected, width, {{0, kTokens, 0}}));
  selected[50 * width] -= 1;
  std::swap_ranges(selected.begin() + 100 * width, selected.begin() + 101 * width, selected.begin() + 180 * width);
  EXPECT_NE(whole, Hash(selected, width, {{0, kTokens, 0}})) << "the choices of two tokens exchanged";
}

}  // namespace
}  // namespace longspan::test
