// One case of the NSA operator: sizes, configuration, documents and values on the host. Values are doubles that float
// holds exactly, so that an F32 run, an F64 run and the oracle see the same numbers.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/attention/nsa_config.h"
#include "kernels/attention/phi.h"
#include "runtime/rounding.h"

namespace longspan::test {

using Array = std::vector<double>;

enum Branch { kCmp = 0, kSlc = 1, kWin = 2 };
inline constexpr std::array<const char*, 3> kBranchNames = {"cmp", "slc", "win"};

using PhiArrays = PhiSet<Array>;

// The floating inputs of the operator, or their gradients.
struct NsaArrays {
  Array q;                 // [S,H,K]
  std::array<Array, 3> k;  // [S,G,K] by branch; SHARED: k[0] feeds all three, the others are empty
  std::array<Array, 3> v;  // [S,G,V]
  Array gates;             // [S,H,3]
  PhiArrays phi_k, phi_v;

  // Those that are not empty, with their names.
  std::vector<std::pair<std::string, Array*>> Named();
};

struct NsaCase {
  int64_t tokens = 0;       // S
  int64_t heads = 1;        // H
  int64_t groups = 1;       // G
  int64_t key_width = 4;    // K
  int64_t value_width = 4;  // V
  NsaConfig nsa = {};
  double scale = 0;                     // of the scores; Randomize sets 1/sqrt(K) when it is 0
  double rope_theta = 0;                // 0 = compressed keys are not rotated (always so for compress_rope BEFORE)
  std::vector<int32_t> doc_start = {};  // [S], empty = one document
  NsaArrays in = {};
  Array d_out = {};  // [S,H,V]

  bool rotates() const { return nsa.compress_rope == CompressRope::kAfter && rope_theta != 0; }
  int64_t blocks() const { return CeilDiv(tokens, nsa.select_block); }
  int64_t compressed() const { return tokens < nsa.block ? 0 : (tokens - nsa.block) / nsa.stride + 1; }  // C
  int64_t DocStart(int64_t t) const { return doc_start.empty() ? 0 : doc_start[t]; }
  int64_t HeadsPerGroup() const { return heads / groups; }
  int64_t PhiHidden(int64_t width) const { return nsa.phi_hidden > 0 ? nsa.phi_hidden : 2 * width; }
  PhiSizes SizesOfPhi(int64_t width) const { return {nsa.phi, groups, nsa.block, width, PhiHidden(width)}; }
  const Array& K(int branch) const { return in.k[nsa.kv_branches == KvBranches::kShared ? 0 : branch]; }
  const Array& V(int branch) const { return in.v[nsa.kv_branches == KvBranches::kShared ? 0 : branch]; }
};

// Results of a forward run, rows in the order of the sequence.
struct NsaOutputs {
  Array out;                      // [S,H,V]
  std::array<Array, 3> o;         // [S,H,V] by branch
  std::array<Array, 3> lse;       // [S,H]
  Array k_cmp, v_cmp;             // [S/d,G,K] rotated, [S/d,G,V]; compressed token j in row j + l/d - 1
  std::vector<int32_t> selected;  // [S,G,n]
  Array scores;                   // [S,G,n]; empty when `selected` was given
};

// Fills `in` and `d_out` from the seed alone: same bits on every machine. Values are about normal, weights scaled by
// their fan-in, gates in (0,1).
void Randomize(NsaCase& c, uint64_t seed);

// doc_start for documents of these lengths one after another, each but the last padded to a multiple of `unit`.
std::vector<int32_t> PackDocuments(const std::vector<int64_t>& lengths, int64_t unit);

// A random case: small sizes, odd configurations (any l,d,b,n,n_init,n_local,w, group size, K != V, phi, rope,
// branches, documents) that section 2 allows.
NsaCase RandomCase(uint64_t seed);

std::string Describe(const NsaCase& c);  // one line, for failure messages

}  // namespace longspan::test
