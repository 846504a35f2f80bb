// Which key rows a query sees, and how the queries and keys of a call are cut into tiles (DESIGN.md section 2).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/attention/ops.h"

namespace longspan {

// Key rows [begin, end) of the sequence of rows that a page table speaks of.
struct Span {
  int64_t begin = 0;
  int64_t end = 0;
};

// A query: its position in the sequence, its local row.
struct Query {
  int64_t position = 0;
  int64_t row = 0;
};

// Appends the spans that a query sees in a group, ascending; none is empty.
using Visibility = std::function<void(const Query& query, int64_t group, std::vector<Span>* spans)>;

Visibility SeenCompressed(const Tensor& doc_start, int64_t block, int64_t stride);
Visibility SeenSelected(const SelectedArgs& args);
Visibility SeenWindow(const WindowArgs& args);

// doc_start[position], 0 without a tensor.
int64_t DocStart(const Tensor& doc_start, int64_t position);

// Consecutive queries of one segment.
struct QueryTile {
  Query first;
  int64_t count = 0;
  Query at(int64_t i) const { return {first.position + i, first.row + i}; }
};
std::vector<QueryTile> CutQueries(const std::vector<Segment>& segments, int64_t tile);

// Queries [first, last) of a query tile all see rows [begin, end) of a key tile, and no others of it (or come again).
struct Patch {
  int64_t tile = 0;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t first = 0;
  int64_t last = 0;
};

// Lists the patches of a query tile by ascending key tile. A query meets the same rows in the same order
// whatever other queries share its tile.
class PatchList {
 public:
  const std::vector<Patch>& List(const QueryTile& queries, int64_t group, int64_t key_tile, const Visibility& visible);

 private:
  std::vector<Patch> patches_;
  std::vector<Span> spans_;
  std::vector<int64_t> next_;  // of each query, its next span; next_[i] == last_[i] when all are taken
  std::vector<int64_t> last_;
};

}  // namespace longspan
