// Every gradient of the operator in fp64 against central differences of the oracle, selection frozen: relative 1e-6.
//
// Of each input up to kSamples elements are checked one by one, and all of them together along one random direction.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/support/compare.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_run.h"
#include "tests/support/oracle.h"

namespace longspan::test {
namespace {

constexpr size_t kSamples = 12;
constexpr double kStep = 2e-3;

double Loss(const NsaCase& c, const std::vector<int32_t>& selected) {
  const Array out = Oracle(c, &selected).out;
  double sum = 0;
  for (size_t i = 0; i < out.size(); ++i) sum += c.d_out[i] * out[i];
  return sum;
}

// d loss / d s of x + s*direction at s = 0, of fourth order in the step. x lies inside c.
double Slope(NsaCase& c, const std::vector<int32_t>& selected, Array& x, const Array& direction) {
  const Array start = x;
  auto at = [&](double steps) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = start[i] + steps * kStep * direction[i];
    return Loss(c, selected);
  };
  const double slope = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * kStep);
  x = start;
  return slope;
}

void CheckGradients(NsaCase c) {
  NsaOperator nsa(CpuMachine(DType::kF64), c);
  nsa.Forward();
  nsa.StartGradients();
  nsa.Backward();
  const std::vector<int32_t> selected = nsa.Outputs().selected;
  NsaArrays gradients = nsa.Gradients();
  std::vector<const Array*> all;
  for (auto& [name, values] : gradients.Named()) all.push_back(values);
  const double floor = GradientFloor(all);
  std::mt19937_64 random(1);
  auto inputs = c.in.Named(), found = gradients.Named();
  ASSERT_EQ(inputs.size(), found.size());
  for (size_t a = 0; a < inputs.size(); ++a) {
    auto& [name, x] = inputs[a];
    const Array& gradient = *found[a].second;
    ASSERT_EQ(gradient.size(), x->size()) << name;
    Array expected, chosen, direction(x->size(), 0.0);
    for (size_t sample = 0; sample < std::min(kSamples, x->size()); ++sample) {
      const size_t i = x->size() <= kSamples ? sample : random() % x->size();
      direction[i] = 1;
      expected.push_back(Slope(c, selected, *x, direction));
      chosen.push_back(gradient[i]);
      direction[i] = 0;
    }
    // Of length 1, so that its slope is of an element's size.
    double along = 0;
    for (double& u : direction) u = (random() % 2 == 0 ? 1 : -1) / std::sqrt(static_cast<double>(x->size()));
    for (size_t i = 0; i < x->size(); ++i) along += direction[i] * gradient[i];
    expected.push_back(Slope(c, selected, *x, direction));
    chosen.push_back(along);
    EXPECT_TRUE(RmsClose("d_" + name, chosen, expected, 1e-6, floor)) << Describe(c);
  }
}

NsaCase Small(Phi phi, CompressRope rope, KvBranches branches) {
  NsaCase c{.tokens = 37, .heads = 4, .groups = 2, .key_width = 4, .value_width = 3};
  c.nsa = {.block = 6, .stride = 3, .select_block = 9, .select = 2, .init = 0, .local = 1, .window = 5, .phi = phi};
  c.nsa.phi_hidden = 5;
  c.nsa.compress_rope = rope;
  c.nsa.kv_branches = branches;
  c.rope_theta = rope == CompressRope::kAfter && branches == KvBranches::kSeparate ? 50 : 0;
  return c;
}

class Gradient : public ::testing::TestWithParam<std::tuple<Phi, CompressRope, KvBranches>> {};

TEST_P(Gradient, OneDocument) {
  const auto [phi, rope, branches] = GetParam();
  NsaCase c = Small(phi, rope, branches);
  Randomize(c, 21);
  CheckGradients(c);
}

TEST_P(Gradient, Documents) {
  const auto [phi, rope, branches] = GetParam();
  NsaCase c = Small(phi, rope, branches);
  c.doc_start = PackDocuments({11, 3, 10}, 9);  // start at 0, 18, 27
  c.tokens = static_cast<int64_t>(c.doc_start.size());
  Randomize(c, 22);
  CheckGradients(c);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Gradient,
                         ::testing::Combine(::testing::Values(Phi::kMlp, Phi::kLinear, Phi::kMean),
                                            ::testing::Values(CompressRope::kAfter, CompressRope::kBefore),
                                            ::testing::Values(KvBranches::kSeparate, KvBranches::kShared)));

TEST(GradientOf, LongBlocksManyHeadsOneGroup) {
  NsaCase c{.tokens = 41, .heads = 8, .groups = 1, .key_width = 2, .value_width = 5};
  c.nsa = {.block = 8, .stride = 2, .select_block = 8, .select = 3, .window = 64, .phi_hidden = 3};
  c.rope_theta = 10;
  Randomize(c, 23);
  CheckGradients(c);
}

TEST(GradientOf, BlocksWithoutOverlap) {
  NsaCase c{.tokens = 30, .heads = 2, .groups = 2, .key_width = 6, .value_width = 2};
  c.nsa = {.block = 4, .stride = 4, .select_block = 4, .select = 3, .window = 1, .phi = Phi::kLinear};
  Randomize(c, 24);
  CheckGradients(c);
}

TEST(GradientOf, SequenceShorterThanABlock) {
  NsaCase c{.tokens = 7, .heads = 2, .groups = 1, .key_width = 4, .value_width = 4};
  c.nsa = {.block = 8, .stride = 4, .select_block = 8, .select = 3, .window = 3, .phi_hidden = 3};
  Randomize(c, 25);
  CheckGradients(c);
}

TEST(GradientOf, LargeLogits) {
  NsaCase c = Small(Phi::kMean, CompressRope::kBefore, KvBranches::kSeparate);
  c.scale = 3;
  Randomize(c, 26);
  CheckGradients(c);
}

}  // namespace
}  // namespace longspan::test
