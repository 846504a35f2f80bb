// nsa_compute_attention and nsa_update_window: one query at a sequence's end, as the oracle says; a window of its own.
#include <cmath>

#include "tests/nsa/library.h"
#include "tests/support/compare.h"
#include "tests/support/oracle.h"

namespace longspan::test {
namespace {

// One head of one group, keys and values for all branches, gates 1.
NsaCase OneHead(int64_t tokens, Phi phi) {
  NsaCase c;
  c.tokens = tokens;
  c.key_width = c.value_width = 16;
  c.nsa.kv_branches = KvBranches::kShared;
  c.nsa.phi = phi;
  c.scale = 0.25;
  Randomize(c, 21);
  c.in.gates.assign(c.in.gates.size(), 1.0);
  return c;
}

Array LastRow(const Array& rows, int64_t width) { return Array(rows.end() - width, rows.end()); }

TEST(Query, IsTheOraclesLastRow) {
  for (const int64_t tokens : {1, 31, 32, 47, 48, 64, 65, 511, 513, 1500}) {
    const NsaCase c = OneHead(tokens, Phi::kMean);
    NSAConfig config = nsa_create_default_config(16, 8);
    config.device = NSA_DEVICE_CPU;
    NSAContext ctx;
    ASSERT_NSA(nsa_init(&ctx, &config));
    const Values<float> values(c);
    std::vector<float> out(16);
    ASSERT_NSA(nsa_compute_attention(&ctx, values.q.data() + (tokens - 1) * 16, values.k[0].data(), values.v[0].data(),
                                     static_cast<int32_t>(tokens), out.data(), nullptr));
    EXPECT_TRUE(RmsClose("out", Doubles(out), LastRow(Oracle(c).out, 16), 1e-5)) << tokens;
    nsa_free(&ctx);
  }
}

TEST(Query, UsesWeights) {
  const NsaCase c = OneHead(700, Phi::kMlp);
  Library library(c, NSA_FLOAT32);
  const Values<float> values(c);
  std::vector<float> out(16);
  ASSERT_NSA(nsa_compute_attention(library.get(), values.q.data() + 699 * 16, values.k[0].data(), values.v[0].data(),
                                   700, out.data(), nullptr));
  EXPECT_TRUE(RmsClose("out", Doubles(out), LastRow(Oracle(c).out, 16), 1e-5));
}

// Softmax attention of a query over rows, in fp64.
Array Attention(const float* q, const std::vector<float>& k, const std::vector<float>& v, size_t first, size_t end) {
  Array out(16, 0);
  double sum = 0;
  for (size_t i = first; i < end; ++i) {
    double score = 0;
    for (size_t c = 0; c < 16; ++c) score += 0.25 * q[c] * k[i * 16 + c];
    sum += std::exp(score);
    for (size_t c = 0; c < 16; ++c) out[c] += std::exp(score) * v[i * 16 + c];
  }
  for (double& x : out) x /= sum;
  return out;
}

TEST(Query, AWindowOfItsOwn) {
  const NsaCase c = OneHead(300, Phi::kMean);
  NSAConfig config = nsa_create_default_config(16, 8);
  config.device = NSA_DEVICE_CPU;
  config.window_size = 100;
  NSAContext ctx;
  ASSERT_NSA(nsa_init(&ctx, &config));
  const Values<float> values(c);
  const std::vector<float> window_k = As<float>(OneHead(800, Phi::kMean).in.k[0]),
                           window_v = As<float>(OneHead(900, Phi::kMean).in.k[0]);
  const float* const q = values.q.data();
  const auto compute = [&] {
    std::vector<float> out(16);
    EXPECT_NSA(nsa_compute_attention(&ctx, q, values.k[0].data(), values.v[0].data(), 300, out.data(), nullptr));
    return Doubles(out);
  };
  Array rest = compute();  // less what the sequence's own window gives
  const Array own = Attention(q, values.k[0], values.v[0], 200, 300);
  for (size_t i = 0; i < 16; ++i) rest[i] -= own[i];

  size_t appended = 0;
  for (const size_t count : {1, 60, 39, 70, 250, 7}) {  // less, exactly and more than the window; around the ring
    ASSERT_NSA(nsa_update_window(&ctx, window_k.data() + appended * 16, window_v.data() + appended * 16,
                                 static_cast<int32_t>(count), nullptr));
    appended += count;
    Array expected = Attention(q, window_k, window_v, appended > 100 ? appended - 100 : 0, appended);
    for (size_t i = 0; i < 16; ++i) expected[i] += rest[i];
    EXPECT_TRUE(RmsClose("out", compute(), expected, 1e-5)) << appended;
  }
  nsa_reset(&ctx);
  Array expected = own;
  for (size_t i = 0; i < 16; ++i) expected[i] += rest[i];
  EXPECT_TRUE(RmsClose("reset", compute(), expected, 1e-5));
  nsa_free(&ctx);
}

}  // namespace
}  // namespace longspan::test
