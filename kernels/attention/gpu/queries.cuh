// The queries of a call, its segments, as a kernel's parameter: cut in tiles, or looked up by position or row.
#pragma once

#include <algorithm>
#include <climits>
#include <vector>

#include "kernels/attention/pages.h"
#include "kernels/base/gpu_common.cuh"

namespace longspan {

constexpr int kMaxSegments = 16;

// Tiles of at most `tile` consecutive queries of one segment each.
struct QueryTilesGpu {
  int count = 0;  // segments
  int tile = 1;
  int begin[kMaxSegments];
  int length[kMaxSegments];
  int row[kMaxSegments];
  int first_tile[kMaxSegments + 1];  // [count] is the number of tiles

  int tiles() const { return first_tile[count]; }
};

// The same segments, cut in tiles of `tile` queries.
inline QueryTilesGpu Recut(QueryTilesGpu queries, int tile) {
  queries.tile = tile;
  queries.first_tile[0] = 0;
  for (int i = 0; i < queries.count; ++i) {
    queries.first_tile[i + 1] = queries.first_tile[i] + static_cast<int>(CeilDiv(queries.length[i], tile));
  }
  return queries;
}

// Throws Error naming `operation` for more than kMaxSegments segments and positions or rows of 2^31 and more.
inline QueryTilesGpu CutQueriesGpu(const char* operation, const std::vector<Segment>& segments, int tile) {
  LS_CHECK(segments.size() <= kMaxSegments, "{}: segments: expected at most {} on a GPU, found {}", operation,
           kMaxSegments, segments.size());
  QueryTilesGpu queries;
  for (const Segment& segment : segments) {
    LS_CHECK(std::max(segment.begin, segment.row) + segment.length < INT32_MAX,
             "{}: segments: expected positions below 2^31 on a GPU, found {} tokens from {} on", operation,
             segment.length, segment.begin);
    queries.begin[queries.count] = static_cast<int>(segment.begin);
    queries.length[queries.count] = static_cast<int>(segment.length);
    queries.row[queries.count] = static_cast<int>(segment.row);
    ++queries.count;
  }
  return Recut(queries, tile);
}

// ---- On the device -------------------------------------------------------------------------------------------------

struct SpanGpu {
  int begin, end;  // key rows or positions of the sequence; empty when begin >= end
};

struct QueryTileGpu {
  int position, row, count;
};

__device__ inline int SegmentOf(const QueryTilesGpu& queries, int tile) {
  int segment = 0;
  while (tile >= queries.first_tile[segment + 1]) ++segment;
  return segment;
}

__device__ inline QueryTileGpu FindQueries(const QueryTilesGpu& queries, int tile, int segment) {
  const int offset = (tile - queries.first_tile[segment]) * queries.tile;
  return {queries.begin[segment] + offset, queries.row[segment] + offset,
          min(queries.tile, queries.length[segment] - offset)};
}
__device__ inline QueryTileGpu FindQueries(const QueryTilesGpu& queries, int tile) {
  return FindQueries(queries, tile, SegmentOf(queries, tile));
}

struct QueryGpu {
  int position, row;
};

__device__ inline int PositionOf(const QueryTilesGpu& queries, int row) {  // -1 when no segment holds the row
  for (int i = 0; i < queries.count; ++i) {
    const int offset = row - queries.row[i];
    if (offset >= 0 && offset < queries.length[i]) return queries.begin[i] + offset;
  }
  return -1;
}

// How many of the segments' queries lie at positions [span.begin, span.end).
__device__ inline int CountQueries(const QueryTilesGpu& queries, SpanGpu span) {
  int count = 0;
  for (int i = 0; i < queries.count; ++i) {
    count += max(0, min(queries.begin[i] + queries.length[i], span.end) - max(queries.begin[i], span.begin));
  }
  return count;
}

// Number `index` of them, segment by segment.
__device__ inline QueryGpu QueryAt(const QueryTilesGpu& queries, SpanGpu span, int index) {
  for (int i = 0; i < queries.count; ++i) {
    const int begin = max(queries.begin[i], span.begin);
    const int count = max(0, min(queries.begin[i] + queries.length[i], span.end) - begin);
    if (index < count) return {begin + index, queries.row[i] + begin + index - queries.begin[i]};
    index -= count;
  }
  return {-1, -1};
}

}  // namespace longspan
