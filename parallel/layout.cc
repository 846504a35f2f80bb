#include "parallel/layout.h"

#include <string>

#include "runtime/error.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

int64_t ChunkCount(LayoutKind kind, int ranks) { return kind == LayoutKind::kHeadTail ? 2 * ranks : ranks; }

const char* LayoutName(LayoutKind kind) { return kind == LayoutKind::kHeadTail ? "HEAD_TAIL" : "CONTIGUOUS"; }

}  // namespace

Layout::Layout(LayoutKind kind, int64_t sequence, int ranks, int64_t unit)
    : kind_(kind), sequence_(sequence), ranks_(ranks), unit_(unit), chunk_(sequence) {
  if (sequence < 1 || ranks < 1 || unit < 1) {
    Fail(ExitCode::kConfig, "layout: sequence length {}, ranks {} and unit {} must be positive", sequence, ranks, unit);
  }
  segments_.resize(ranks);
  if (ranks == 1) {
    segments_[0] = {{0, sequence, 0}};
    return;
  }
  const int64_t chunks = ChunkCount(kind, ranks);
  const int64_t step = chunks * unit;
  if (sequence % step != 0) {
    const int64_t above = PaddedLength(kind, sequence, ranks, unit);
    const std::string below = above > step ? fmt::format("{} or ", above - step) : "";
    Fail(ExitCode::kConfig,
         "sequence length {}: layout {} over {} ranks cuts it in {} chunks, each a multiple of {} tokens; take {}{}",
         sequence, LayoutName(kind), ranks, chunks, unit, below, above);
  }
  chunk_ = sequence / chunks;
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<Segment>& segments = segments_[rank];
    segments.push_back({rank * chunk_, chunk_, 0});
    if (kind == LayoutKind::kContiguous) continue;
    const int64_t tail = chunks - 1 - rank;
    if (tail == rank + 1) {
      segments[0].length += chunk_;
    } else {
      segments.push_back({tail * chunk_, chunk_, chunk_});
    }
  }
}

int64_t Layout::PaddedLength(LayoutKind kind, int64_t sequence, int ranks, int64_t unit) {
  if (ranks == 1) return sequence;
  const int64_t step = ChunkCount(kind, ranks) * unit;
  return RoundUp(sequence, step);
}

Layout::Place Layout::Find(int64_t position) const {
  LS_CHECK(position >= 0 && position < sequence_, "layout: position {} is outside of the sequence of {} tokens",
           position, sequence_);
  const int64_t chunk = position / chunk_;
  const int64_t offset = position % chunk_;
  if (chunk < ranks_) return {static_cast<int>(chunk), offset};
  return {static_cast<int>(2 * ranks_ - 1 - chunk), chunk_ + offset};
}

std::vector<int32_t> Layout::GatheredPages(int64_t page_tokens) const {
  LS_CHECK(page_tokens >= 1 && (ranks_ == 1 || chunk_ % page_tokens == 0),
           "layout: pages of {} tokens do not divide the chunk of {}", page_tokens, chunk_);
  std::vector<int32_t> pages(CeilDiv(sequence_, page_tokens));
  for (size_t page = 0; page < pages.size(); ++page) {
    const Place place = Find(static_cast<int64_t>(page) * page_tokens);
    pages[page] = static_cast<int32_t>((place.rank * tokens() + place.row) / page_tokens);
  }
  return pages;
}

}  // namespace longspan
