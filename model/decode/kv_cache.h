// KvCache: keys and values of the sequences that are being decoded, in one layer.
//
//   pages   [pages*b,G,.]          of the selected branch, of FULL attention, and with SHARED of the window
//           [pages*b/d,G,.]        of NSA their compressed tokens, each in the page that holds its last token: one more
//                                  every d tokens
//   rings   [sequences*ring,G,.]   of the compression's input and of the window, b tokens a page: page i of a sequence
//                                  is its ring's page i % pages. They hold what a step reads of the past, and what it
//                                  reads after up to `step` tokens were taken back
//
// The operations are those of training: a step's queries are a segment at the sequence's end, and all that they read
// lies in pages (but see decode_kernels.h). Which page holds which b tokens of a sequence is the caller's to say.
#pragma once

#include <functional>
#include <string>

#include "kernels/ops.h"
#include "model/config.h"
#include "runtime/memory.h"

namespace longspan {

// New tokens of a sequence.
struct NewTokens {
  int64_t sequence = 0;
  int64_t length = 0;  // tokens before
  int64_t count = 0;   // new ones
  int64_t row = 0;     // the first's, of the step's keys, values, queries and outputs
  // Pages hold page_blocks*b tokens: [ceil((length+count)/(page_blocks*b))] I32.
  Tensor table;
  int64_t page_blocks = 1;

  Segment segment() const { return {length, count, row}; }
};

class KvCache {
 public:
  struct Args {
    AttentionKind kind = AttentionKind::kNsa;
    NsaConfig nsa;
    // Compression reads rows of its own (SEPARATE, or keys before their rotation), the window too (SEPARATE).
    bool own_compression = true, own_window = true;
    int64_t groups = 0, key_width = 0, value_width = 0;  // G, K, V
    DType dtype = DType::kF32;
    int64_t sequences = 1;
    int64_t pages = 1;           // of all sequences
    int64_t sequence_pages = 1;  // of one, at most
    int64_t step = 1;            // new tokens of a sequence in one step, at most
  };
  explicit KvCache(const Args& args);

  void Reserve(Arena& arena, const std::string& name);
  void Start(Device& device, RowOps& rows, Stream& stream);  // after Commit: all rows are 0

  // The rows of k and v [.,G,.] from tokens.segment() on become those that `branch` reads (the order of branches:
  // compressed, selected, window; other kinds of attention have one, whatever its number).
  void Append(AttentionOps& ops, Stream& stream, const NewTokens& tokens, int branch, const Tensor& k, const Tensor& v);
  // A compressed token more for every d tokens: of what was appended. `rotate` is given new keys [n,G,K] of compressed
  // rows begin .. begin+n-1.
  using Rotate = std::function<void(const Tensor& k, int64_t begin)>;
  void Summarize(AttentionOps& ops, Stream& stream, const NewTokens& tokens, const PhiWeights& phi_k,
                 const PhiWeights& phi_v, const Rotate& rotate);
  // Compressed rows [n,G,.], from the sequence's first on.
  void PutSummaries(AttentionOps& ops, Stream& stream, const NewTokens& tokens, const Tensor& k, const Tensor& v);

  // What a branch reads of the sequence.
  KeysValues Raw(int branch, const NewTokens& tokens) const;
  KeysValues Summaries(const NewTokens& tokens) const;
  // The same for decoding's kernels, of all sequences.
  DecodeRows RawRows(int branch) const;
  DecodeRows SummaryRows() const { return {summaries_.k, summaries_.v, 0}; }
  int64_t held(int branch) const;  // last tokens of a sequence that Raw still has; all: INT64_MAX

 private:
  struct Store {
    Tensor k, v;
  };
  struct Ring {
    int64_t pages = 0;  // 0: there is none
    Tensor table;       // [sequence_pages] I32: i % pages
    Store rows;         // [sequences*pages*b,G,.]
  };

  const Ring* RingOf(int branch) const;  // null: in pages
  int64_t slot_rows(const Ring& ring) const { return ring.pages * args_.nsa.select_block; }
  void ReserveStore(Arena& arena, const std::string& name, int64_t rows, Store* store);
  void ReserveRing(Arena& arena, const std::string& name, int64_t tokens, Ring* ring);
  static void Put(AttentionOps& ops, Stream& stream, const Segment& segment, const Tensor& k, const Tensor& v,
                  const KeysValues& to);

  const Args args_;
  Store pages_, summaries_;
  Ring cmp_ring_, win_ring_;
  Store new_summaries_;  // [.,G,.] of one sequence's new tokens
};

}  // namespace longspan
