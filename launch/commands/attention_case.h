// An attention case: the inputs and parameters of one run of the NSA operator, in one safetensors file.
//
//   q            [S,H,K]                  rotated
//   k_cmp        [S,G,K]                  to be compressed: unrotated for compress_rope AFTER, rotated for BEFORE
//   k_slc, k_win [S,G,K]                  rotated
//   v_cmp, v_slc, v_win [S,G,V]
//   k, v                                  instead of the six: one for all branches
//   gates        [S,H,3]      optional    after the sigmoid, order cmp, slc, win; absent = ones
//   doc_start    [S] I32      optional    absent = one document
//   d_out        [S,H,V]      optional    asks for gradients
//   selected     [S,G,N] I32  optional    freezes the choice: visible blocks, ascending, then -1; a selection file
//                                         (launch/train/selection_file.h) may give it instead
//   phi_k.NAME, and phi_v.NAME with V for K
//     MLP        position [l,K], weight1 [l*K,M], bias1 [M], weight2 [M,K], bias2 [K]    (M is read from weight1)
//     LINEAR     position [G,l,K], weight [G,l*K,K]
//
// All floating tensors are of one type: F32, F64 or BF16. Metadata, over the defaults of NsaConfig: block, stride,
// select_block, select, init, local, window, phi, compress_rope; rope_theta (with AFTER, compressed keys are rotated
// only when it is given), scale (default 1/sqrt(K)). "format", which other writers set, is passed over.
#pragma once

#include <string>
#include <vector>

#include "model/attention/core.h"
#include "runtime/files/safetensors.h"

namespace longspan {

struct AttentionCase {
  SafetensorsFile file;  // holds the tensors
  DType dtype = DType::kF32;
  int64_t sequence = 0;  // S
  AttentionCore::Sizes sizes{};
  NsaConfig nsa;          // kv_branches SHARED: the file has k and v
  double rope_theta = 0;  // of the compressed keys; 0 = they are not rotated
  double scale = 0;
  std::vector<int32_t> selected;  // [S,G,N]; empty = the queries choose

  Tensor Find(const std::string& name) const { return file.Has(name) ? file.Get(name) : Tensor(); }  // null: absent
  // The names of a branch's keys and values: "k_cmp", or "k" when all branches share them.
  std::string K(const std::string& branch) const { return shared() ? "k" : fmt::format("k_{}", branch); }
  std::string V(const std::string& branch) const { return shared() ? "v" : fmt::format("v_{}", branch); }
  bool shared() const { return nsa.kv_branches == KvBranches::kShared; }
};

// `selection`: a selection file, "" for none. Throws Error (data) naming the file, the tensor or key, what was expected
// and what was found.
AttentionCase ReadAttentionCase(const std::string& path, const std::string& selection = "");

}  // namespace longspan
