// Decoding on a GPU: kernels for a few queries at the ends of many sequences, whose keys and values lie in pages and
// rings (model/decode/kv_cache.h). A backend without them decodes with the operations of ops.h, which are the
// reference.
//
// All that a step is about lies in device memory: its lengths too, so that one CUDA graph serves as sequences grow.
// Nothing is allocated, nothing waits. A query's result depends on its position, queries, keys and values alone, not on
// what is beside it in the step or on how many steps a graph was made for: keys are cut in splits at fixed places, of
// which each leaves a partial softmax, and the splits' sums are merged in order.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/attention/nsa_config.h"
#include "kernels/attention/pages.h"
#include "kernels/attention/phi.h"
#include "runtime/device.h"
#include "runtime/tensor.h"

namespace longspan {

inline constexpr int64_t kMaxDecodeTokens = 16;  // new ones of a sequence in a step

struct DecodeSizes {
  DType dtype = DType::kF32;
  int64_t heads = 0, groups = 0, key_width = 0, value_width = 0;  // H, G, K, V
  NsaConfig nsa;
};

// New tokens of a sequence: `count` after `length`, of which the first is row `row` of the step's.
struct DecodeEntry {
  int32_t sequence = 0, length = 0, count = 0, row = 0;
};

// A step on the device: B sequences with T new tokens in all.
struct DecodeStep {
  Tensor entries = {};          // [B,4] I32, DecodeEntry
  Tensor queries = {};          // [T,2] I32: entry, position
  Tensor table = {};            // [rows,P] I32: the page of each b tokens
  bool table_by_entry = false;  // its row is the entry's number; otherwise the sequence's
  int64_t max_count = 1;        // of an entry, at most
  int64_t max_tokens = 0;       // of a sequence with its new ones, at most
  // Of each entry its new tokens, by which costs are counted; null where the host does not know the lengths.
  const std::vector<Segment>* segments = nullptr;
};

// Rows of keys and values in pages: b tokens each, or of compressed tokens b/d.
struct DecodeRows {
  Tensor k, v;             // [R,G,K], [R,G,V]
  int64_t ring_pages = 0;  // 0: the table has the pages; else page i of sequence s is s * ring_pages + i % ring_pages
};

struct DecodeAppendArgs {
  DecodeStep step;
  int64_t page_rows = 0;  // b
  struct Branch {
    Tensor k, v;  // [T,G,K], [T,G,V]
    DecodeRows to;
  };
  std::span<const Branch> branches;  // at most 3
};

// The compressed tokens whose last token is new.
struct DecodeSummarizeArgs {
  DecodeStep step;
  DecodeSizes sizes;
  DecodeRows from, to;
  PhiWeights phi_k, phi_v;
  Tensor frequency;  // [K/2] F64, of the keys' rotation at their first token's position; null: not rotated
  double factor = 1;
  Tensor scratch;  // U8, SummarizeScratch
};

struct DecodeAttendArgs {
  DecodeStep step;
  DecodeSizes sizes;
  double scale = 0;
  DecodeRows summaries, selected_rows, window_rows;
  Tensor q;                  // [T,H,K]
  Tensor gates;              // [T,H,3]
  Tensor selected;           // [T,G,N] I32 output
  Tensor o;                  // [T,H,V] output
  int64_t pass_queries = 0;  // that are worked on together
  Tensor scratch;            // U8, AttendScratch of pass_queries and of max_tokens or more
};

class DecodeOps {
 public:
  virtual ~DecodeOps() = default;
  // What it does not serve is decoded with training's kernels.
  virtual bool Serves(const DecodeSizes& sizes) const = 0;
  virtual int64_t SummarizeScratch(const DecodeSizes& sizes, int64_t entries, int64_t max_count) const = 0;
  virtual int64_t AttendScratch(const DecodeSizes& sizes, int64_t queries, int64_t max_tokens) const = 0;

  // Writes step.entries and step.queries. The numbers are taken at the call.
  virtual void Begin(Stream& stream, const DecodeStep& step, std::span<const DecodeEntry> entries) = 0;
  // The same of `count` new tokens each, after lengths [B] I32, which then have grown by them; sequences [B] I32, null:
  // 0, 1, 2, ..
  virtual void Begin(Stream& stream, const DecodeStep& step, const Tensor& sequences, const Tensor& lengths,
                     int64_t count) = 0;
  virtual void Append(Stream& stream, const DecodeAppendArgs& args) = 0;
  virtual void Summarize(Stream& stream, const DecodeSummarizeArgs& args) = 0;
  virtual void Attend(Stream& stream, const DecodeAttendArgs& args) = 0;
};

std::unique_ptr<DecodeOps> MakeGpuDecode();

}  // namespace longspan
