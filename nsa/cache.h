// Cache: keys and values of the sequences that are being decoded, and a step of decoding (nsa_prefill, nsa_decode).
//
//   pages   [num_pages*b,G,.]      of the selected branch (SHARED: of all), and beside them [num_pages*b/d,G,.]
//                                  their compressed tokens, each in the page that holds its last token
//   rings   [max_batch*ring,G,.]   of the compression's input and of the window, b tokens a page: page i of a
//                                  sequence is its ring's page i % pages. They hold what a step reads of the past,
//                                  and what it reads after NSA_MAX_NEW_TOKENS tokens were taken back
//
// The operations are those of training: a step's queries are a segment at the sequence's end, and everything that they
// read lies in pages.
#pragma once

#include <vector>

#include "nsa/sequence.h"

namespace longspan {

class Cache {
 public:
  Cache(Context& context, int64_t num_pages);
  void Start();  // allocates; all rows are 0

  static Cache& Of(const NSACache* cache, const Context& context);  // refuses null, and what is not of this context

  // What `call` has and its forward has made becomes sequence number `sequence`.
  void Prefill(SequenceCall& call, int64_t sequence, const int32_t* page_table, const Tensor& out,
               const Tensor& selected);
  void CheckPrefill(const SequenceCall& call, int64_t sequence, const int32_t* page_table) const;

  // A step, checked: one entry a sequence.
  struct Entry {
    int64_t sequence, length, count, row;  // which; tokens before; new ones; the first's row of q, k, v and out
    Tensor table;                          // [ceil((length+count)/b)] I32
  };
  struct Step {
    std::vector<Entry> entries;
    Tensor q, out, gates, selected;  // gates, selected: null where not given
    std::array<Tensor, 3> k, v;
  };
  Step Check(const NSADecodeStep* step) const;
  void Decode(const Step& step);

 private:
  // Keys and values with the geometry of pages or rings.
  struct Store {
    Tensor k, v;
  };
  struct Ring {
    int64_t pages = 0;
    Tensor table;  // [max_pages] I32: i % pages
    Store rows;    // [max_batch*pages*b,G,.]
  };

  void Hold(int64_t sequence, int64_t length, int64_t count);  // `count` tokens after `length`
  void ReserveRing(const char* name, int64_t tokens, Ring* ring);
  void CheckTable(const int32_t* table, int64_t pages, const std::string& name) const;
  int64_t slot_rows(const Ring& ring) const { return ring.pages * context_.nsa.select_block; }
  // What a branch reads of sequence `entry`, `rows` tokens of it.
  KeysValues PagesOf(const Entry& entry) const;
  KeysValues SummariesOf(const Entry& entry) const;
  KeysValues RingOf(const Ring& ring, const Entry& entry) const;
  KeysValues RawOf(int branch, const Entry& entry) const;
  // The rows of x from `segment` on to where `to` says.
  void Put(const Segment& segment, const Tensor& k, const Tensor& v, const KeysValues& to);
  void AppendRows(const Entry& entry, const Step& step);
  void Summarize(const Entry& entry);
  void Attend(const Entry& entry, const Step& step);

  Context& context_;
  int64_t num_pages_;
  Arena arena_;
  Store pages_, summaries_;
  Ring cmp_ring_, win_ring_;  // not SHARED
  Store new_summaries_;       // [.,G,.] of one sequence's new tokens
  BranchOutputs out_;         // of all queries of a step
  Tensor gates_, logits_;
  struct Tokens {
    int64_t held = 0;     // of the sequence
    int64_t written = 0;  // those taken back since it began included: what its rings have lost
  };
  std::vector<Tokens> tokens_;  // of each sequence
};

}  // namespace longspan
