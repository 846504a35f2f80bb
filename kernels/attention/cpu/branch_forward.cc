// Forward of a branch: overwrites o and lse. A thread takes a query tile (64 rows: queries x heads of one group) and
// walks over the key tiles it sees by ascending position, with a running maximum and sum (online softmax), so memory
// does not grow with the keys. Bound by the multiply-adds of the two small products; the tiles stay in the first two
// caches. One Zen 4 core, fp32, K=V=64, 4 heads a group, S = 4k to 16k: 40 to 53% of the FMA peak (K=V=16: 20 to 35%).
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention/cpu/branch.h"
#include "kernels/attention/cpu/key_tiles.h"

namespace longspan {
namespace {

// The softmax of one row of the query tile, as far as it has come.
template <typename T>
struct RunningSoftmax {
  T max = -std::numeric_limits<T>::infinity();
  T sum = 0;

  // Turns one tile's scores [width], of which [begin, end) count, into exp(score - max), 0 elsewhere; rescales o.
  void Take(const TileMath<T>& math, T* scores, int64_t width, int64_t begin, int64_t end, T* o, int64_t o_width) {
    std::fill(scores, scores + begin, -std::numeric_limits<T>::infinity());
    std::fill(scores + end, scores + width, -std::numeric_limits<T>::infinity());
    const T new_max = std::max(max, math.max(scores, width));
    if (new_max > max) {
      const T shrink = std::exp(max - new_max);
      sum *= shrink;
      math.scale(o, o_width, shrink);
      max = new_max;
    }
    sum += math.exp(scores, width, max);
  }
};

// One thread's memory.
template <typename T>
struct Workspace {
  PatchList patches;
  Scratch<T> q;
  Scratch<T> scores;
  Scratch<T> o;
  std::vector<RunningSoftmax<T>> softmax;
};

template <typename T>
void ForwardTile(const BranchArgs& args, const Visibility& visible, const KeyMap& map, const KeyTiles<T>& k_columns,
                 const KeyTiles<T>& v_rows, const QueryTile& queries, int64_t group) {
  static thread_local Workspace<T> work;
  const TileMath<T>& math = TileMathOf<T>();
  const int64_t groups = args.kv.k.dim(1), key_width = args.kv.k.dim(2), value_width = args.kv.v.dim(2);
  const int64_t heads = args.q.dim(1), group_heads = heads / groups;
  const int64_t rows = queries.count * group_heads;
  const int64_t score_width = PadRow<T>(map.tile_rows());
  const int64_t q_width = PadRow<T>(key_width), o_width = PadRow<T>(value_width);
  T* const q = work.q.Get(rows * q_width);
  T* const o = work.o.Get(rows * o_width);
  T* const scores = work.scores.Get(rows * score_width);
  PackQueries(args.q, queries, group, groups, T(args.scale), q);
  std::fill_n(o, rows * o_width, T(0));
  work.softmax.assign(rows, {});

  for (const Patch& patch : work.patches.List(queries, group, map.tile_rows(), visible)) {
    const int64_t slot = map.slot(patch.tile);
    const int64_t first = patch.first * group_heads, count = (patch.last - patch.first) * group_heads;
    math.product({.a = {q + first * q_width, q_width, 1},
                  .b = k_columns.tile(slot),
                  .b_row = k_columns.stride(),
                  .c = scores,
                  .c_row = score_width,
                  .rows = count,
                  .columns = score_width,
                  .depth = key_width});
    for (int64_t i = 0; i < count; ++i) {
      work.softmax[first + i].Take(math, scores + i * score_width, score_width, patch.begin, patch.end,
                                   o + (first + i) * o_width, o_width);
    }
    math.product({.a = {scores + patch.begin, score_width, 1},
                  .b = v_rows.tile(slot) + patch.begin * o_width,
                  .b_row = o_width,
                  .c = o + first * o_width,
                  .c_row = o_width,
                  .rows = count,
                  .columns = o_width,
                  .depth = patch.end - patch.begin,
                  .accumulate = true});
  }

  for (int64_t i = 0; i < rows; ++i) {
    const RunningSoftmax<T>& softmax = work.softmax[i];
    const int64_t row = (queries.first.row + i / group_heads) * heads + group * group_heads + i % group_heads;
    T* const out = args.o.As<T>() + row * value_width;
    // A query that sees nothing has sum 0: o = 0, lse = -inf + log(0) = -inf.
    for (int64_t c = 0; c < value_width; ++c) out[c] = softmax.sum == 0 ? T(0) : o[i * o_width + c] / softmax.sum;
    args.lse.As<T>()[row] = softmax.max + std::log(softmax.sum);
  }
}

}  // namespace

std::vector<QueryTile> CutForHeads(const std::vector<Segment>& segments, int64_t heads_per_group) {
  return CutQueries(segments, std::max<int64_t>(1, kTileQueryRows / heads_per_group));
}

template <typename T>
void PackQueries(const Tensor& x, const QueryTile& queries, int64_t group, int64_t groups, T factor, T* to) {
  const int64_t heads = x.dim(1), width = x.dim(2), group_heads = heads / groups;
  const int64_t to_width = PadRow<T>(width);
  for (int64_t i = 0; i < queries.count * group_heads; ++i, to += to_width) {
    const int64_t row = (queries.first.row + i / group_heads) * heads + group * group_heads + i % group_heads;
    const T* const from = x.As<const T>() + row * width;
    for (int64_t c = 0; c < width; ++c) to[c] = factor * from[c];
    std::fill(to + width, to + to_width, T(0));
  }
}

template <typename T>
void ForwardBranch(const BranchArgs& args, int64_t key_tile, const Visibility& visible) {
  static thread_local KeyMap this_map;
  static thread_local KeyTiles<T> this_k_columns, this_v_rows;
  KeyMap& map = this_map;  // the calling thread's, shared by all
  KeyTiles<T>&k_columns = this_k_columns, &v_rows = this_v_rows;

  const int64_t groups = args.kv.k.dim(1);
  const std::vector<QueryTile> queries = CutForHeads(args.segments, args.q.dim(1) / groups);
  for (int64_t group = 0; group < groups; ++group) {
    map.Build(queries, group, visible, args.kv.pages, args.kv.k.dim(0), key_tile);
    k_columns.PackColumns(map, args.kv.k, group);
    v_rows.PackRows(map, args.kv.v, group);
#pragma omp parallel for schedule(dynamic)
    for (const QueryTile& tile : queries) ForwardTile(args, visible, map, k_columns, v_rows, tile, group);
  }
}

template void PackQueries(const Tensor&, const QueryTile&, int64_t, int64_t, float, float*);
template void PackQueries(const Tensor&, const QueryTile&, int64_t, int64_t, double, double*);
template void ForwardBranch<float>(const BranchArgs&, int64_t, const Visibility&);
template void ForwardBranch<double>(const BranchArgs&, int64_t, const Visibility&);

}  // namespace longspan
