// DecodeKernels: a step with the kernels made for it (kernels/attention/decode.h) over caches, where the device has
// such kernels and they serve the sizes; and their memory, which all layers share.
#pragma once

#include <span>
#include <vector>

#include "model/decode/kv_cache.h"

namespace longspan {

class DecodeKernels {
 public:
  struct Args {
    DecodeSizes sizes;
    int64_t entries = 1;     // sequences of a step, at most
    int64_t queries = 1;     // new tokens of a step, at most
    int64_t max_tokens = 1;  // of a sequence
  };
  DecodeKernels(DecodeOps* ops, const Args& args);  // ops null: serves nothing
  bool serves() const { return ops_ != nullptr; }
  // Serves, and these in particular: up to kMaxDecodeTokens each.
  bool Serves(std::span<const NewTokens> entries) const;
  void Reserve(Arena& arena);

  // A step begins, whose later calls do not depend on how long its sequences are: of host numbers, or of `count` new
  // tokens each after lengths in device memory, which grow. table [rows,P] I32: a row an entry, or a sequence.
  void Begin(Stream& stream, std::span<const NewTokens> entries, const Tensor& table, bool table_by_entry);
  void Begin(Stream& stream, int64_t entries, int64_t count, const Tensor& sequences, const Tensor& lengths,
             const Tensor& table);

  // Of the step that began, in the order of KvCache's contracts. k, v [T,G,.].
  struct Rows {
    int branch;
    Tensor k, v;
  };
  void Append(Stream& stream, const KvCache& cache, std::span<const Rows> rows);
  struct Attention {
    PhiWeights phi_k, phi_v;
    Tensor frequency;  // [K/2] F64 of the compressed keys' rotation; null: not rotated
    double factor = 1;
    double scale = 0;
    Tensor q, gates, selected, o;  // [T,H,K], [T,H,3], [T,G,N] I32, [T,H,V]
  };
  void Attend(Stream& stream, const KvCache& cache, const Attention& attention);

 private:
  DecodeOps* ops_;
  const Args args_;
  const int64_t pass_queries_;
  Tensor entries_, queries_, summarize_scratch_, attend_scratch_;
  std::vector<Segment> segments_;  // of the step, where lengths are known
  DecodeStep step_;
};

}  // namespace longspan
