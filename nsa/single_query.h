// One query of one head against a sequence of keys and values, and the window of its own that may be given to it
// (nsa_compute_attention, nsa_update_window). F32, values as wide as keys.
#pragma once

#include "nsa/branches.h"

namespace longspan {

class SingleQuery {
 public:
  SingleQuery(AttentionContext& context, Arena& arena);  // reserves for max_length tokens

  void Compute(const float* query, const float* keys, const float* values, int64_t length, float* output);
  void Append(const float* keys, const float* values, int64_t count);
  void Reset() { appended_ = 0; }

 private:
  CompressArgs Compression(const Tensor& x, const Tensor& y, bool keys) const;

  AttentionContext& context_;
  NsaConfig nsa_;
  Tensor k_cmp_, v_cmp_;        // [max_length/d,1,K]
  Tensor window_k_, window_v_;  // [w,1,K], token i in row i % w
  int64_t appended_ = 0;        // tokens, since the beginning
  BranchOutputs out_;           // of one query
  Tensor gates_, logits_;       // [1,1,3], [1,3]
};

}  // namespace longspan
