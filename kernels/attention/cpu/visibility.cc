#include "kernels/attention/cpu/visibility.h"

#include <algorithm>
#include <limits>

#include "runtime/rounding.h"

namespace longspan {

int64_t DocStart(const Tensor& doc_start, int64_t position) {
  return doc_start ? doc_start.As<const int32_t>()[position] : 0;
}

Visibility SeenCompressed(const Tensor& doc_start, int64_t block, int64_t stride) {
  return [=](const Query& query, int64_t, std::vector<Span>* spans) {
    const int64_t lead = block / stride - 1;
    const int64_t first = CeilDiv(DocStart(doc_start, query.position), stride);
    const int64_t end = query.position + 1 < block ? 0 : (query.position + 1 - block) / stride + 1;
    if (first < end) spans->push_back({first + lead, end + lead});
  };
}

Visibility SeenSelected(const SelectedArgs& args) {
  return [selected = args.selected, block = args.select_block](const Query& query, int64_t group,
                                                               std::vector<Span>* spans) {
    const int64_t count = selected.dim(2);
    const int32_t* chosen = selected.As<const int32_t>() + (query.row * selected.dim(1) + group) * count;
    for (int64_t i = 0; i < count && chosen[i] >= 0; ++i) {
      const int64_t begin = chosen[i] * block;
      const int64_t end = std::min(begin + block, query.position + 1);
      if (begin < end) spans->push_back({begin, end});
    }
  };
}

Visibility SeenWindow(const WindowArgs& args) {
  return [doc_start = args.doc_start, window = args.window](const Query& query, int64_t, std::vector<Span>* spans) {
    const int64_t first = query.position < window ? 0 : query.position - window + 1;
    spans->push_back({std::max(DocStart(doc_start, query.position), first), query.position + 1});
  };
}

std::vector<QueryTile> CutQueries(const std::vector<Segment>& segments, int64_t tile) {
  std::vector<QueryTile> tiles;
  for (const Segment& segment : segments) {
    for (int64_t i = 0; i < segment.length; i += tile) {
      tiles.push_back({{segment.begin + i, segment.row + i}, std::min(tile, segment.length - i)});
    }
  }
  return tiles;
}

const std::vector<Patch>& PatchList::List(const QueryTile& queries, int64_t group, int64_t key_tile,
                                          const Visibility& visible) {
  patches_.clear();
  spans_.clear();
  next_.clear();
  last_.clear();
  for (int64_t i = 0; i < queries.count; ++i) {
    next_.push_back(std::ssize(spans_));
    visible(queries.at(i), group, &spans_);
    last_.push_back(std::ssize(spans_));
  }
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  for (;;) {
    int64_t tile = kNone;
    for (int64_t i = 0; i < queries.count; ++i) {
      if (next_[i] < last_[i]) tile = std::min(tile, spans_[next_[i]].begin / key_tile);
    }
    if (tile == kNone) return patches_;
    const int64_t origin = tile * key_tile;
    for (int64_t i = 0; i < queries.count; ++i) {
      if (next_[i] == last_[i] || spans_[next_[i]].begin / key_tile != tile) continue;
      Span& span = spans_[next_[i]];
      const int64_t begin = span.begin - origin;
      const int64_t end = std::min(span.end - origin, key_tile);
      span.begin = origin + end;
      if (span.begin == span.end) ++next_[i];
      Patch* last = patches_.empty() ? nullptr : &patches_.back();
      if (last && last->tile == tile && last->begin == begin && last->end == end && last->last == i) {
        last->last = i + 1;
      } else {
        patches_.push_back({tile, begin, end, i, i + 1});
      }
    }
  }
}

}  // namespace longspan
