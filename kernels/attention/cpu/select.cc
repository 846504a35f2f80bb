// Selection: overwrites `selected` (and `scores`). A thread takes a query tile of one group, recomputes the compressed
// branch's probabilities key tile by key tile with the very products of its forward, and adds them at once to one score
// a block and query: memory is one row of S/select_block scores for each query of the tile. Bound by the multiply-adds
// (30% of the FMA peak at 4 heads a group; with one head a group the scores of blocks weigh more, 11%).
#include "kernels/attention/cpu/select.h"

#include <algorithm>
#include <bit>

#include "kernels/attention/cpu/branch.h"
#include "kernels/attention/cpu/key_tiles.h"
#include "kernels/base/mix.h"

namespace longspan {
namespace {

template <typename T>
struct Workspace {
  PatchList patches;
  Scratch<T> q, scores, p;
  std::vector<T> block_scores;  // [queries, blocks]
  std::vector<int32_t> candidates;
};

// Adds the probabilities of compressed tokens [token, token+count) to the blocks they overlap: at most two each, as
// block <= select_block.
template <typename T>
void AddToBlocks(const NsaConfig& nsa, int64_t token, int64_t count, const T* probabilities, T* block_scores) {
  const int64_t cells = nsa.block / nsa.stride, block_cells = nsa.select_block / nsa.stride;
  int64_t block = token / block_cells, cell = token % block_cells;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t inside = std::min(cells, block_cells - cell);
    block_scores[block] += T(inside) * probabilities[i];
    if (inside < cells) block_scores[block + 1] += T(cells - inside) * probabilities[i];
    if (++cell == block_cells) {
      cell = 0;
      ++block;
    }
  }
}

// The blocks [first, own] are visible. Writes min(select, visible) of them, ascending, then -1.
template <typename T>
void Choose(const NsaConfig& nsa, int64_t first, int64_t own, const T* scores, std::vector<int32_t>* candidates,
            int32_t* selected) {
  const int64_t forced_end = std::min(first + nsa.init, own + 1);          // [first, forced_end)
  const int64_t forced_begin = std::max(own + 1 - nsa.local, forced_end);  // [forced_begin, own]
  int64_t count = 0;
  for (int64_t block = first; block < forced_end; ++block) selected[count++] = block;
  for (int64_t block = forced_begin; block <= own; ++block) selected[count++] = block;

  candidates->clear();
  for (int64_t block = forced_end; block < forced_begin; ++block) candidates->push_back(block);
  const int64_t rest = std::min(nsa.select - count, std::ssize(*candidates));
  const auto rank = [scores](int32_t block) { return scores[block] >= 0 ? scores[block] : T(-1); };  // NaN is last
  std::nth_element(candidates->begin(), candidates->begin() + rest, candidates->end(),
                   [&](int32_t a, int32_t b) { return rank(a) != rank(b) ? rank(a) > rank(b) : a < b; });
  std::copy_n(candidates->begin(), rest, selected + count);
  count += rest;
  std::sort(selected, selected + count);
  std::fill(selected + count, selected + nsa.select, -1);
}

// While all visible blocks fit, nobody asks for their order.
bool NeedsScores(const SelectArgs& args, const QueryTile& queries) {
  if (args.scores) return true;
  for (int64_t i = 0; i < queries.count; ++i) {
    const int64_t position = queries.at(i).position, block = args.nsa.select_block;
    if (position / block - DocStart(args.doc_start, position) / block + 1 > args.nsa.select) return true;
  }
  return false;
}

// work.block_scores[queries, blocks] += the probabilities of all compressed tokens the queries see.
template <typename T>
void AddScores(const SelectArgs& args, const Visibility& visible, const KeyMap& map, const KeyTiles<T>& k_columns,
               const QueryTile& queries, int64_t group, int64_t blocks, Workspace<T>& work) {
  const TileMath<T>& math = TileMathOf<T>();
  const int64_t heads = args.q.dim(1), groups = args.k.dim(1), key_width = args.k.dim(2);
  const int64_t group_heads = heads / groups, rows = queries.count * group_heads;
  const int64_t score_width = PadRow<T>(map.tile_rows()), q_width = PadRow<T>(key_width);
  T* const q = work.q.Get(rows * q_width);
  T* const scores = work.scores.Get(rows * score_width);
  T* const p = work.p.Get(score_width);
  PackQueries(args.q, queries, group, groups, T(args.scale), q);

  for (const Patch& patch : work.patches.List(queries, group, map.tile_rows(), visible)) {
    const int64_t first = patch.first * group_heads, count = (patch.last - patch.first) * group_heads;
    const int64_t token = patch.tile * map.tile_rows() + patch.begin - args.nsa.lead();
    math.product({.a = {q + first * q_width, q_width, 1},
                  .b = k_columns.tile(map.slot(patch.tile)),
                  .b_row = score_width,
                  .c = scores,
                  .c_row = score_width,
                  .rows = count,
                  .columns = score_width,
                  .depth = key_width});
    for (int64_t query = patch.first; query < patch.last; ++query) {
      const T* const query_scores = scores + (query - patch.first) * group_heads * score_width;
      const T* const lse = args.lse.As<const T>() + (queries.first.row + query) * heads + group * group_heads;
      math.exp_columns(query_scores, group_heads, score_width, lse, p);
      AddToBlocks(args.nsa, token, patch.end - patch.begin, p + patch.begin, work.block_scores.data() + query * blocks);
    }
  }
}

template <typename T>
void SelectTile(const SelectArgs& args, const Visibility& visible, const KeyMap& map, const KeyTiles<T>& k_columns,
                const QueryTile& queries, int64_t group) {
  static thread_local Workspace<T> work;
  const NsaConfig& nsa = args.nsa;
  const int64_t blocks = (queries.first.position + queries.count - 1) / nsa.select_block + 1;
  work.block_scores.assign(queries.count * blocks, T(0));
  if (NeedsScores(args, queries)) AddScores(args, visible, map, k_columns, queries, group, blocks, work);
  for (int64_t i = 0; i < queries.count; ++i) {
    const Query query = queries.at(i);
    const T* const block_scores = work.block_scores.data() + i * blocks;
    const int64_t place = (query.row * args.k.dim(1) + group) * nsa.select;
    int32_t* const selected = args.selected.As<int32_t>() + place;
    Choose(nsa, DocStart(args.doc_start, query.position) / nsa.select_block, query.position / nsa.select_block,
           block_scores, &work.candidates, selected);
    if (!args.scores) continue;
    for (int64_t n = 0; n < nsa.select; ++n) {
      args.scores.As<T>()[place + n] = selected[n] < 0 ? T(0) : block_scores[selected[n]];
    }
  }
}

}  // namespace

template <typename T>
void SelectBlocks(const SelectArgs& args) {
  static thread_local KeyMap this_map;
  static thread_local KeyTiles<T> this_k_columns;
  KeyMap& map = this_map;  // the calling thread's, shared by all
  KeyTiles<T>& k_columns = this_k_columns;

  const int64_t groups = args.k.dim(1);
  const Visibility visible = SeenCompressed(args.doc_start, args.nsa.block, args.nsa.stride);
  const std::vector<QueryTile> queries = CutForHeads(args.segments, args.q.dim(1) / groups);
  for (int64_t group = 0; group < groups; ++group) {
    map.Build(queries, group, visible, args.pages, args.k.dim(0), kKeyTile);
    k_columns.PackColumns(map, args.k, group);
#pragma omp parallel for schedule(dynamic)
    for (const QueryTile& tile : queries) SelectTile(args, visible, map, k_columns, tile, group);
  }
}

void HashBlocks(const HashSelectionArgs& args) {
  const int64_t groups = args.selected.dim(1), count = args.selected.dim(2);
  uint64_t hash = 0;
  for (const Segment& segment : args.segments) {
#pragma omp parallel for reduction(+ : hash)
    for (int64_t i = 0; i < segment.length; ++i) {
      const int32_t* chosen = args.selected.As<const int32_t>() + (segment.row + i) * groups * count;
      for (int64_t j = 0; j < groups * count; ++j) {
        const uint64_t place = Mix((segment.begin + i) * groups * count + j + 1);
        hash += Mix(place ^ static_cast<uint32_t>(chosen[j]));
      }
    }
  }
  args.hash.As<int64_t>()[0] = std::bit_cast<int64_t>(hash);
}

template void SelectBlocks<float>(const SelectArgs&);
template void SelectBlocks<double>(const SelectArgs&);

}  // namespace longspan
