#include "tests/support/nsa_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace longspan::test {
namespace {

class Generator {
 public:
  explicit Generator(uint64_t seed) : engine_(seed) {}

  double Uniform() { return static_cast<double>(engine_() >> 40) * 0x1p-24; }  // [0,1)
  int64_t Below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  bool Coin() { return Below(2) == 1; }
  int64_t Pick(const std::vector<int64_t>& choices) {
    return choices[static_cast<size_t>(Below(static_cast<int64_t>(choices.size())))];
  }
  // A sum of four uniforms, mean 0, variance 1: near enough to normal.
  double Normal() { return std::sqrt(3.0) * (Uniform() + Uniform() + Uniform() + Uniform() - 2); }

  Array Normals(int64_t count, double scale) {
    Array values(static_cast<size_t>(count));
    for (double& x : values) x = static_cast<float>(scale * Normal());
    return values;
  }

 private:
  std::mt19937_64 engine_;
};

PhiArrays RandomPhi(const NsaCase& c, int64_t width, Generator& random) {
  const PhiSizes sizes = c.SizesOfPhi(width);
  const double from_block = 1 / std::sqrt(static_cast<double>(sizes.block * width)),
               from_hidden = 2 / std::sqrt(static_cast<double>(sizes.hidden));
  const PhiSet<double> scale = {0.5, from_block, 0.3, from_hidden, 0.3, from_block};
  PhiArrays phi;
  ForPhi(sizes, [&](size_t i, const Shape& shape) { phi[i] = random.Normals(shape.count(), scale[i]); });
  return phi;
}

}  // namespace

std::vector<std::pair<std::string, Array*>> NsaArrays::Named() {
  std::vector<std::pair<std::string, Array*>> all = {{"q", &q}, {"gates", &gates}};
  for (int branch : {kCmp, kSlc, kWin}) {
    all.emplace_back(fmt::format("k_{}", kBranchNames[branch]), &k[branch]);
    all.emplace_back(fmt::format("v_{}", kBranchNames[branch]), &v[branch]);
  }
  for (auto [name, phi] : {std::pair("phi_k", &phi_k), std::pair("phi_v", &phi_v)}) {
    for (size_t i = 0; i < phi->kSize; ++i) all.emplace_back(fmt::format("{}.{}", name, kPhiNames[i]), &(*phi)[i]);
  }
  std::erase_if(all, [](const auto& item) { return item.second->empty(); });
  return all;
}

void Randomize(NsaCase& c, uint64_t seed) {
  Generator random(seed);
  if (c.scale == 0) c.scale = 1 / std::sqrt(static_cast<double>(c.key_width));
  c.in = {};
  c.in.q = random.Normals(c.tokens * c.heads * c.key_width, 1);
  const int kv_sets = c.nsa.kv_branches == KvBranches::kShared ? 1 : 3;
  for (int set = 0; set < kv_sets; ++set) {
    c.in.k[set] = random.Normals(c.tokens * c.groups * c.key_width, 1);
    c.in.v[set] = random.Normals(c.tokens * c.groups * c.value_width, 1);
  }
  c.in.gates.resize(static_cast<size_t>(c.tokens * c.heads * 3));
  for (double& gate : c.in.gates) gate = static_cast<float>(0.05 + 0.9 * random.Uniform());
  c.in.phi_k = RandomPhi(c, c.key_width, random);
  c.in.phi_v = RandomPhi(c, c.value_width, random);
  c.d_out = random.Normals(c.tokens * c.heads * c.value_width, 1);
}

std::vector<int32_t> PackDocuments(const std::vector<int64_t>& lengths, int64_t unit) {
  std::vector<int32_t> doc_start;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const size_t begin = doc_start.size();
    const int64_t padded = i + 1 < lengths.size() ? RoundUp(lengths[i], unit) : lengths[i];
    doc_start.resize(begin + static_cast<size_t>(padded), static_cast<int32_t>(begin));
  }
  return doc_start;
}

NsaCase RandomCase(uint64_t seed) {
  Generator random(seed);
  NsaCase c;
  NsaConfig& nsa = c.nsa;
  nsa.stride = random.Pick({1, 2, 3, 4, 8});
  nsa.block = nsa.stride * random.Pick({1, 2, 3, 4});
  nsa.select_block = nsa.stride * random.Pick({1, 2, 4, 5});
  if (nsa.select_block < nsa.block) nsa.select_block = nsa.block;
  nsa.init = random.Below(3);
  nsa.local = random.Below(4);
  nsa.select = std::max<int64_t>(1, nsa.init + nsa.local) + random.Below(4);
  nsa.window = random.Pick({1, 2, 7, 16, 33, 1000});
  nsa.phi = static_cast<Phi>(random.Below(3));
  nsa.phi_hidden = random.Pick({0, 3});
  nsa.compress_rope = random.Coin() ? CompressRope::kAfter : CompressRope::kBefore;
  c.rope_theta = random.Coin() && nsa.compress_rope == CompressRope::kAfter ? 100 : 0;
  // Shared keys cannot be both unrotated for the compression and rotated for the other branches.
  nsa.kv_branches = random.Coin() && !c.rotates() ? KvBranches::kShared : KvBranches::kSeparate;
  c.groups = random.Pick({1, 2, 3});
  c.heads = c.groups * random.Pick({1, 2, 4, 8, 16});
  c.key_width = random.Pick({2, 4, 6, 16, 18});
  c.value_width = random.Pick({1, 3, 4, 8, 17});
  c.tokens = 1 + random.Below(random.Coin() ? 150 : 40);
  if (random.Coin()) {
    std::vector<int64_t> lengths;
    const int64_t unit = nsa.select_block;
    for (int64_t used = 0; used < c.tokens; used += RoundUp(lengths.back(), unit)) {
      lengths.push_back(std::min(c.tokens - used, 1 + random.Below(c.tokens)));
    }
    c.doc_start = PackDocuments(lengths, unit);
    c.tokens = static_cast<int64_t>(c.doc_start.size());
  }
  Randomize(c, seed + 1);
  return c;
}

std::string Describe(const NsaCase& c) {
  const NsaConfig& nsa = c.nsa;
  return fmt::format(
      "S={} H={} G={} K={} V={} l={} d={} b={} n={} init={} local={} w={} phi={} hidden={} rope={} theta={} {} {}",
      c.tokens, c.heads, c.groups, c.key_width, c.value_width, nsa.block, nsa.stride, nsa.select_block, nsa.select,
      nsa.init, nsa.local, nsa.window, static_cast<int>(nsa.phi), nsa.phi_hidden,
      nsa.compress_rope == CompressRope::kAfter ? "AFTER" : "BEFORE", c.rope_theta,
      nsa.kv_branches == KvBranches::kShared ? "SHARED" : "SEPARATE",
      c.doc_start.empty() ? "one document" : "documents");
}

}  // namespace longspan::test
