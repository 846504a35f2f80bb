// Cache: the C interface's cache (nsa_prefill, nsa_decode): what a call asks for, checked, and a step of decoding. What
// lies where: model/decode/kv_cache.h.
#pragma once

#include <vector>

#include "model/decode/decode_kernels.h"
#include "nsa/sequence.h"

namespace longspan {

class Cache {
 public:
  Cache(AttentionContext& context, int64_t num_pages);
  void Start();  // allocates; all rows are 0

  // Refuses null, and what is not of this context.
  static Cache& Of(const NSACache* cache, const AttentionContext& context);

  // What `call` has and its forward has made becomes sequence number `sequence`.
  void Prefill(SequenceCall& call, int64_t sequence, const int32_t* page_table, const Tensor& out,
               const Tensor& selected);
  void CheckPrefill(const SequenceCall& call, int64_t sequence, const int32_t* page_table) const;

  // A step, checked: one entry a sequence.
  struct Step {
    std::vector<NewTokens> entries;
    Tensor q, out, gates, selected;  // gates, selected: null where not given
    std::array<Tensor, 3> k, v;
    Tensor table;  // [.,page_table_width] I32
  };
  Step Check(const NSADecodeStep* step) const;
  void Decode(const Step& step);

  // The same of lengths in device memory, with the kernels made for decoding.
  struct DeviceStep : Step {
    int64_t sequences = 0, count = 0;
    Tensor numbers, lengths;  // [sequences] I32; numbers null: 0, 1, 2, ..
  };
  DeviceStep Check(const NSADeviceStep* step) const;
  void Decode(const DeviceStep& step);

 private:
  void Hold(int64_t sequence, int64_t length, int64_t count);  // `count` tokens after `length`
  void CheckTable(const int32_t* table, int64_t pages, const std::string& name) const;
  template <typename Given>
  void ViewTensors(const Given& given, int64_t tokens, Step* step) const;
  void Attend(const NewTokens& entry, const Step& step);
  void DecodeOneByOne(const Step& step);  // with training's kernels, sequence by sequence
  // With the kernels made for it, once the step has begun.
  void DecodeTogether(const Step& step);
  Tensor Gates(const Step& step);

  AttentionContext& context_;
  int64_t num_pages_;
  Arena arena_;
  KvCache kv_;
  DecodeKernels kernels_;
  BranchOutputs out_;  // of all queries of a step
  Tensor gates_, logits_;
  struct Tokens {
    int64_t held = 0;     // of the sequence
    int64_t written = 0;  // those taken back since it began included: what its rings have lost
  };
  std::vector<Tokens> tokens_;  // of each sequence
  bool counted_ = true;         // whether tokens_ is known: lengths in device memory are not
};

}  // namespace longspan
