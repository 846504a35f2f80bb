// nsa_forward and nsa_backward are the operator: the oracle's results and the operations' gradients, documents, shared
// keys, every phi included; gates made of queries, and their gradients, are what differences say.
#include <cmath>
#include <thread>

#include "tests/nsa/library.h"
#include "tests/support/compare.h"
#include "tests/support/derivative.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_compare.h"
#include "tests/support/nsa_run.h"
#include "tests/support/oracle.h"

namespace longspan::test {
namespace {

constexpr uint64_t kSeeds = 60;

// The gradients of one backward, as NsaArrays names them.
template <typename T>
class BackwardRun {
 public:
  BackwardRun(Library& library, const NsaCase& c) : library_(library), case_(c), values_(c) {
    const int sets = c.nsa.kv_branches == KvBranches::kShared ? 1 : 3;
    d_q.assign(values_.q.size(), NAN);
    d_gates.assign(values_.gates.size(), NAN);
    wanted = {d_q.data(), {}, {}, d_gates.data()};
    for (int set = 0; set < sets; ++set) {
      d_k[set].assign(values_.k[set].size(), NAN);
      d_v[set].assign(values_.v[set].size(), NAN);
      wanted.d_k[set] = d_k[set].data();
      wanted.d_v[set] = d_v[set].data();
    }
    Bind("phi_k.", c.key_width, &d_phi_k);
    Bind("phi_v.", c.value_width, &d_phi_v);
  }
  ~BackwardRun() {
    for (const std::string& name : bound_) nsa_bind_gradient(library_.get(), name.c_str(), nullptr);
  }

  void Run() {
    const ForwardResult<T> forward = RunForward<T>(library_, case_, values_.call);
    std::vector<char> work(nsa_backward_workspace_size(library_.get(), case_.tokens), '\xFF');
    const std::vector<T> d_out = As<T>(case_.d_out);
    EXPECT_NSA(
        nsa_backward(library_.get(), &values_.call, forward.saved.data(), d_out.data(), &wanted, work.data(), nullptr));
    selected = forward.selected;
    out = Doubles(forward.out);
  }

  NsaArrays Gradients() const {
    NsaArrays y;
    y.q = Doubles(d_q);
    y.gates = Doubles(d_gates);
    for (int branch : {kCmp, kSlc, kWin}) {
      y.k[branch] = Doubles(d_k[branch]);
      y.v[branch] = Doubles(d_v[branch]);
    }
    for (size_t i = 0; i < kPhiNames.kSize; ++i) {
      y.phi_k[i] = Doubles(d_phi_k[i]);
      y.phi_v[i] = Doubles(d_phi_v[i]);
    }
    return y;
  }

  std::vector<T> d_q, d_gates;
  std::array<std::vector<T>, 3> d_k, d_v;
  PhiSet<std::vector<T>> d_phi_k, d_phi_v;
  NSAGradients wanted;
  std::vector<int32_t> selected;
  Array out;

 private:
  void Bind(const char* prefix, int64_t width, PhiSet<std::vector<T>>* gradients) {
    ForPhi(case_.SizesOfPhi(width), [&](size_t i, const Shape& shape) {
      (*gradients)[i].assign(shape.count(), 0);
      bound_.push_back(prefix + std::string(kPhiNames[i]));
      EXPECT_NSA(nsa_bind_gradient(library_.get(), bound_.back().c_str(), (*gradients)[i].data()));
    });
  }

  Library& library_;
  const NsaCase& case_;
  Values<T> values_;
  std::vector<std::string> bound_;
};

// Scale and theta as the library, which takes them as float, computes with.
NsaCase CaseOf(uint64_t seed) {
  NsaCase c = RandomCase(seed);
  c.scale = static_cast<float>(c.scale);
  c.nsa.compress_rope = CompressRope::kAfter;
  return c;
}

TEST(Sequence, ForwardIsTheOracle) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const NsaCase c = CaseOf(seed);
    SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << Describe(c));
    Library library(c, NSA_FLOAT64);
    const Values<double> values(c);
    const auto found = RunForward<double>(library, c, values.call);
    const NsaOutputs expected = Oracle(c);
    EXPECT_TRUE(BitEqual("selected", found.selected, expected.selected));
    EXPECT_TRUE(RmsClose("out", found.out, expected.out, 1e-11));
    if (HasFailure()) return;
  }
}

TEST(Sequence, GradientsAreTheOperations) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const NsaCase c = CaseOf(seed);
    SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << Describe(c));
    Library library(c, NSA_FLOAT32);
    BackwardRun<float> found(library, c);
    found.Run();
    const NsaResult expected = RunBoth(CpuMachine(DType::kF32), c);
    EXPECT_TRUE(BitEqual("selected", found.selected, expected.outputs.selected));
    EXPECT_TRUE(BitEqual("out", found.out, expected.outputs.out));
    ExpectSameBits(found.Gradients(), expected.gradients);
    if (HasFailure()) return;
  }
}

TEST(Sequence, WeightsGradientsAddAndUnwantedOnesAreLeftOut) {
  const NsaCase c = CaseOf(1);
  ASSERT_NE(c.nsa.phi, Phi::kMean);
  Library library(c, NSA_FLOAT64);
  BackwardRun<double> once(library, c);
  once.Run();
  const NsaArrays first = once.Gradients();
  once.Run();
  const NsaArrays second = once.Gradients();
  EXPECT_TRUE(BitEqual("d_q", second.q, first.q));
  for (size_t i = 0; i < kPhiNames.kSize; ++i) {
    Array twice = first.phi_k[i];
    for (double& x : twice) x *= 2;
    EXPECT_TRUE(RmsClose(kPhiNames[i], second.phi_k[i], twice, 1e-12, 1));  // some are 0 but for rounding
  }
  BackwardRun<double> some(library, c);
  some.wanted = {some.d_q.data(), {}, {}, nullptr};
  some.Run();
  EXPECT_TRUE(BitEqual("d_q alone", Doubles(some.d_q), first.q));
}

// Gates of the queries: out and every gradient of the loss sum(d_out * out), given the choice of blocks.
TEST(Sequence, GatesOfQueries) {
  NsaCase c = CaseOf(4);
  c.nsa.select = 1000;  // all blocks: nothing to choose
  c.tokens = std::min<int64_t>(c.tokens, 40);
  c.doc_start.resize(std::min<size_t>(c.doc_start.size(), c.tokens));
  Randomize(c, 9);
  Library library(c, NSA_FLOAT64);
  Array weight(c.key_width * 3), bias = {0.3, -0.2, 0.1};
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = std::sin(static_cast<double>(i) + 1);
  ASSERT_NSA(nsa_bind_weight(library.get(), "gate.weight", weight.data()));
  ASSERT_NSA(nsa_bind_weight(library.get(), "gate.bias", bias.data()));

  Values<double> values(c);
  const std::vector<double> given = values.gates;
  std::vector<double> made(given.size());
  for (int64_t row = 0; row < c.tokens * c.heads; ++row) {
    for (int64_t b = 0; b < 3; ++b) {
      double x = bias[b];
      for (int64_t i = 0; i < c.key_width; ++i) x += values.q[row * c.key_width + i] * weight[i * 3 + b];
      made[row * 3 + b] = 1 / (1 + std::exp(-x));
    }
  }
  values.call.gates = made.data();
  const auto expected = RunForward<double>(library, c, values.call);
  values.call.gates = nullptr;
  const auto found = RunForward<double>(library, c, values.call);
  EXPECT_TRUE(RmsClose("out", Doubles(found.out), Doubles(expected.out), 1e-14));

  Array d_weight(weight.size(), 0), d_bias(3, 0), d_q(values.q.size());
  ASSERT_NSA(nsa_bind_gradient(library.get(), "gate.weight", d_weight.data()));
  ASSERT_NSA(nsa_bind_gradient(library.get(), "gate.bias", d_bias.data()));
  const NSAGradients wanted = {d_q.data(), {}, {}, nullptr};
  std::vector<char> work(nsa_backward_workspace_size(library.get(), c.tokens));
  ASSERT_NSA(
      nsa_backward(library.get(), &values.call, found.saved.data(), c.d_out.data(), &wanted, work.data(), nullptr));
  const auto loss = [&] {
    const auto run = RunForward<double>(library, c, values.call);
    return std::inner_product(run.out.begin(), run.out.end(), c.d_out.begin(), 0.0);
  };
  const auto check = [&](const char* name, Array* input, const Array& gradient) {
    ExpectGradient(name, *input, gradient, [&](const Array& x) {
      const Array kept = *input;
      std::copy(x.begin(), x.end(), input->begin());
      const double value = loss();
      std::copy(kept.begin(), kept.end(), input->begin());
      return value;
    });
  };
  check("gate.weight", &weight, d_weight);
  check("gate.bias", &bias, d_bias);
  check("q", &values.q, d_q);
}

TEST(Sequence, ThreadsWithContextsOfTheirOwn) {
  const auto outputs = [](uint64_t seed) {
    const NsaCase c = CaseOf(seed);
    Library library(c, NSA_FLOAT32);
    const Values<float> values(c);
    return RunForward<float>(library, c, values.call).out;
  };
  constexpr uint64_t kThreads = 4;
  std::vector<std::vector<float>> expected(kThreads), found(kThreads);
  for (uint64_t i = 0; i < kThreads; ++i) expected[i] = outputs(i);
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int run = 0; run < 10; ++run) found[i] = outputs(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(found, expected);
}

TEST(Sequence, WithoutGatesTheyAreOne) {
  const NsaCase c = CaseOf(7);
  Library library(c, NSA_FLOAT32);
  Values<float> values(c);
  values.gates.assign(values.gates.size(), 1.0F);
  const auto expected = RunForward<float>(library, c, values.call);
  values.call.gates = nullptr;
  const auto found = RunForward<float>(library, c, values.call);
  EXPECT_TRUE(BitEqual("out", Doubles(found.out), Doubles(expected.out)));
}

}  // namespace
}  // namespace longspan::test
