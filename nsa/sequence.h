// The operator over a whole sequence, forward and backward, on the caller's memory (nsa_forward, nsa_backward).
#pragma once

#include "nsa/branches.h"

namespace longspan {

// What a forward keeps for its backward.
struct SavedSequence {
  BranchOutputs out;
  Tensor k_cmp, v_cmp;  // [S/d,G,.]
  Tensor gates;         // [S,H,3], where they were not given
  Tensor logits;        // [S*H,3], likewise
  Tensor doc_start;     // [S] I32, where documents were given
  Tensor positions;     // [S/d] I32 of compressed rows, likewise
};

class SequenceCall {
 public:
  // Refuses inputs against the rules. `saved` is of SavedBytes(tokens).
  SequenceCall(AttentionContext& context, const NSAInputs* inputs, const void* saved);

  static int64_t SavedBytes(const AttentionContext& context, int64_t tokens);
  static int64_t WorkspaceBytes(const AttentionContext& context, int64_t tokens);

  void Forward(const Tensor& out, const Tensor& selected);  // `selected` [S,G,N] or null
  // d_out as out.
  void Backward(const Tensor& d_out, const NSAGradients& gradients, const void* workspace);

  int64_t tokens() const { return tokens_; }
  const Tensor& k(int branch) const { return k_[branch]; }  // [S,G,K]
  const Tensor& v(int branch) const { return v_[branch]; }  // [S,G,V]
  const Tensor& summary_k() const { return saved_.k_cmp; }  // [S/d,G,K] rotated, after Forward
  const Tensor& summary_v() const { return saved_.v_cmp; }  // [S/d,G,V]
  Tensor OutView(const void* out, const char* name) const;  // [S,H,V]

 private:
  struct Gradients {
    Tensor q, gates;
    std::array<Tensor, 3> k, v;
  };
  Gradients Views(const NSAGradients& gradients) const;
  void UploadDocuments();
  CompressArgs Compression(bool keys) const;
  CombineArgs Combination(const Tensor& out) const;
  void GatesBackward(const Tensor& d_gates, const Tensor& d_logits, const Tensor& d_q);

  AttentionContext& context_;
  int64_t tokens_;
  const int32_t* host_doc_start_ = nullptr;
  bool given_gates_ = false;
  std::array<Tensor, 3> k_, v_;
  SavedSequence saved_;
  Tensor gates_;      // given or made
  Tensor positions_;  // [S/d] I32 of compressed rows
  Branches branches_;
};

}  // namespace longspan
