// The parameters of Native Sparse Attention, named as in arXiv 2502.11089 (DESIGN.md section 2), and the rules between
// them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

enum class Phi { kMlp, kLinear, kMean };
enum class KvBranches { kSeparate, kShared };
enum class CompressRope { kAfter, kBefore };

struct NsaConfig {
  int64_t block = 32;         // l, tokens of a compressed token
  int64_t stride = 16;        // d
  int64_t select_block = 64;  // b (the paper's l')
  int64_t select = 16;        // n, blocks taken
  int64_t init = 1;           // n_init, first blocks always taken
  int64_t local = 2;          // n_local, last blocks always taken, the query's own included
  int64_t window = 512;       // w, tokens, the query's own included
  Phi phi = Phi::kMlp;
  int64_t phi_hidden = 0;  // M, hidden width of the MLP; 0 = twice the width of its input rows (2K, 2V)
  CompressRope compress_rope = CompressRope::kAfter;
  KvBranches kv_branches = KvBranches::kSeparate;

  int64_t lead() const { return block / stride - 1; }  // rows before compressed token 0 (never visible)
  int64_t halo() const { return block - stride; }      // l-d, raw rows that the first compressed token borrows
  bool operator==(const NsaConfig&) const = default;
};

// Section 2's rules on l, d, b, n and w: every broken one, keys written with `prefix`. Empty: good.
std::vector<std::string> Problems(const NsaConfig& nsa, const std::string& prefix);

}  // namespace longspan
