// Layout: who holds which tokens. Pure arithmetic, the same object for loader, RoPE, exchange, loss and checkpoint.
//
// The sequence is cut in chunks of equal length, a multiple of `unit` (the selection block b). CONTIGUOUS: rank r holds
// chunk r of P. HEAD_TAIL: rank r holds chunks r and 2P-1-r of 2P, which levels causal work. Adjacent chunks of one
// rank are one segment. On one rank there is one segment and any length is allowed.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention/pages.h"
#include "parallel/config.h"

namespace longspan {

class Layout {
 public:
  // Throws Error (configuration) when `sequence` cannot be cut: with ranks > 1 it must be a multiple of chunks * unit.
  Layout(LayoutKind kind, int64_t sequence, int ranks, int64_t unit);

  // The smallest length >= sequence that can be cut.
  static int64_t PaddedLength(LayoutKind kind, int64_t sequence, int ranks, int64_t unit);

  LayoutKind kind() const { return kind_; }
  int64_t sequence() const { return sequence_; }         // S
  int ranks() const { return ranks_; }                   // P
  int64_t unit() const { return unit_; }                 // b
  int64_t chunk() const { return chunk_; }               // tokens of a chunk
  int64_t tokens() const { return sequence_ / ranks_; }  // T, the same for every rank
  const std::vector<Segment>& segments(int rank) const { return segments_[rank]; }

  struct Place {
    int rank;
    int64_t row;  // local row
  };
  Place Find(int64_t position) const;

  // Where each page of `page_tokens` consecutive tokens lies, in pages, when the ranks' local rows are laid one rank
  // after another (as an all-gather does). page_tokens divides the chunk, or there is one rank.
  std::vector<int32_t> GatheredPages(int64_t page_tokens) const;

 private:
  LayoutKind kind_;
  int64_t sequence_;
  int ranks_;
  int64_t unit_;
  int64_t chunk_;
  std::vector<std::vector<Segment>> segments_;
};

}  // namespace longspan
