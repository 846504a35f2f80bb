// Where queries and key rows lie in memory, and which queries are in the call, changes nothing but the gradients' sums.
#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_compare.h"
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

TEST(Placement, KeyRowsInAnyOrder) {
  for (DType dtype : {DType::kF32, DType::kF64}) {
    for (const NsaCase& c : Cases()) {
      const NsaResult straight = RunBoth(CpuMachine(dtype), c);
      // Pages of b tokens and of four blocks, backwards and mixed, with slots left empty (NaN).
      for (const Placement& placement :
           {Placement{{}, 16, {11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}}, Placement{{}, 64, {3, 0, 1}},
            Placement{{}, 16, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}}}) {
        const NsaResult paged = RunBoth(CpuMachine(dtype), c, nullptr, placement);
        ExpectSameBits(paged.outputs, straight.outputs);
        ExpectGradientsClose(paged.gradients, straight.gradients, dtype == DType::kF64 ? 1e-12 : 1e-5);
      }
    }
  }
}

TEST(Placement, QueriesInAnyOrder) {
  for (const NsaCase& c : Cases()) {
    const NsaResult straight = RunBoth(CpuMachine(DType::kF64), c);
    const NsaResult mixed =
        RunBoth(CpuMachine(DType::kF64), c, nullptr, {{{0, 48, 144}, {48, 96, 0}, {144, 48, 96}}, 0, {}});
    ExpectSameBits(mixed.outputs, straight.outputs);
    ExpectGradientsClose(mixed.gradients, straight.gradients, 1e-12);
  }
}

// As two ranks of a head-tail layout, both with all key rows: together they are the whole.
TEST(Placement, QueriesInPartsAddUp) {
  for (DType dtype : {DType::kF32, DType::kF64}) {
    for (const NsaCase& c : Cases()) {
      const NsaResult whole = RunBoth(CpuMachine(dtype), c);
      NsaResult a = RunBoth(CpuMachine(dtype), c, nullptr, {{{0, 48, 0}, {144, 48, 48}}, 48, {0, 2, 3, 1}});
      NsaResult b = RunBoth(CpuMachine(dtype), c, nullptr, {{{48, 96, 0}}, 48, {0, 2, 3, 1}});
      // The attention of each query is its own: b's rows complete a's.
      auto complete = [](auto& mine, const auto& theirs) {
        const size_t width = mine.size() / kTokens;
        std::copy(theirs.begin() + 48 * width, theirs.begin() + 144 * width, mine.begin() + 48 * width);
      };
      complete(a.outputs.out, b.outputs.out);
      complete(a.outputs.scores, b.outputs.scores);
      complete(a.outputs.selected, b.outputs.selected);
      for (int branch : {kCmp, kSlc, kWin}) {
        complete(a.outputs.o[branch], b.outputs.o[branch]);
        complete(a.outputs.lse[branch], b.outputs.lse[branch]);
      }
      ExpectSameBits(a.outputs, whole.outputs);
      auto sum = a.gradients.Named(), part = b.gradients.Named();
      for (size_t i = 0; i < sum.size(); ++i) {
        for (size_t k = 0; k < sum[i].second->size(); ++k) (*sum[i].second)[k] += (*part[i].second)[k];
      }
      // Some gradients are zero in exact arithmetic; what fp32 leaves of them depends on the order of the sum.
      if (dtype == DType::kF64) ExpectGradientsClose(a.gradients, whole.gradients, 1e-12);
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
