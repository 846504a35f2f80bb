// Backward of a branch: adds to d_q, d_k and d_v. The probabilities are recomputed from the saved lse, tile by tile:
//   P = exp(q k - lse)   dP = d_o v   dS = P (dP - sum(d_o o))   d_q += dS k   d_k += dS q   d_v += P d_o
// A group's query tiles are dealt to kParts parts, each with its own d_k and d_v, which are added up part by part: the
// order of additions does not depend on threads. Bound by the multiply-adds of the five small products:
// 38 to 60% of a Zen 4 core's FMA peak (fp32, K=V=64, 4 heads a group, S = 4k to 16k).
#include <algorithm>

#include "kernels/attention/cpu/branch.h"
#include "kernels/attention/cpu/key_tiles.h"

namespace longspan {
namespace {

constexpr int64_t kParts = 4;

// One group's keys and values in both forms that the products want.
template <typename T>
struct PackedKeys {
  KeyMap map;
  KeyTiles<T> k_rows, k_columns, v_rows, v_columns;
};

// One thread's memory.
template <typename T>
struct Workspace {
  PatchList patches;
  Scratch<T> q, d_o, o, d_q, p, d_s;
  std::vector<T> lse, delta;
};

// d_k and d_v are the tiles of one part.
template <typename T>
void BackwardTile(const BranchArgs& args, const BranchGradient& gradient, const Visibility& visible,
                  const PackedKeys<T>& keys, const QueryTile& queries, int64_t group, T* d_k, T* d_v) {
  static thread_local Workspace<T> work;
  const TileMath<T>& math = TileMathOf<T>();
  const int64_t groups = args.kv.k.dim(1), key_width = args.kv.k.dim(2), value_width = args.kv.v.dim(2);
  const int64_t heads = args.q.dim(1), group_heads = heads / groups;
  const int64_t rows = queries.count * group_heads, tile_rows = keys.map.tile_rows();
  const int64_t score_width = PadRow<T>(tile_rows);
  const int64_t q_width = PadRow<T>(key_width), o_width = PadRow<T>(value_width);
  const auto row_of = [&](int64_t i) {
    return (queries.first.row + i / group_heads) * heads + group * group_heads + i % group_heads;
  };
  T* const q = work.q.Get(rows * q_width);
  T* const d_q = work.d_q.Get(rows * q_width);
  T* const d_o = work.d_o.Get(rows * o_width);
  T* const o = work.o.Get(rows * o_width);
  T* const p = work.p.Get(rows * score_width);
  T* const d_s = work.d_s.Get(rows * score_width);
  PackQueries(args.q, queries, group, groups, T(args.scale), q);
  PackQueries(gradient.d_o, queries, group, groups, T(1), d_o);
  if (const BranchGate& gate = gradient.gate; gate.gates) {
    for (int64_t i = 0; i < rows; ++i) {
      const T factor = gate.gates.As<const T>()[row_of(i) * 3 + gate.branch];
      for (int64_t c = 0; c < o_width; ++c) d_o[i * o_width + c] *= factor;
    }
  }
  PackQueries(args.o, queries, group, groups, T(1), o);
  std::fill_n(d_q, rows * q_width, T(0));
  work.lse.resize(rows);
  work.delta.resize(rows);
  for (int64_t i = 0; i < rows; ++i) {
    work.lse[i] = args.lse.As<const T>()[row_of(i)];
    work.delta[i] = math.dot(d_o + i * o_width, o + i * o_width, o_width);
  }

  for (const Patch& patch : work.patches.List(queries, group, tile_rows, visible)) {
    const int64_t slot = keys.map.slot(patch.tile);
    const int64_t first = patch.first * group_heads, count = (patch.last - patch.first) * group_heads;
    const int64_t seen = patch.end - patch.begin;
    const T* const q_rows = q + first * q_width;
    const T* const d_o_rows = d_o + first * o_width;
    math.product({.a = {q_rows, q_width, 1},
                  .b = keys.k_columns.tile(slot),
                  .b_row = score_width,
                  .c = p,
                  .c_row = score_width,
                  .rows = count,
                  .columns = score_width,
                  .depth = key_width});
    math.product({.a = {d_o_rows, o_width, 1},
                  .b = keys.v_columns.tile(slot),
                  .b_row = score_width,
                  .c = d_s,
                  .c_row = score_width,
                  .rows = count,
                  .columns = score_width,
                  .depth = value_width});
    for (int64_t i = 0; i < count; ++i) {
      math.softmax_backward(p + i * score_width, d_s + i * score_width, score_width, work.lse[first + i],
                            work.delta[first + i]);
    }
    // From here on only the rows that are seen.
    const T* const p_seen = p + patch.begin;
    const T* const d_s_seen = d_s + patch.begin;
    const int64_t key = slot * tile_rows + patch.begin;
    math.product({.a = {d_s_seen, score_width, 1},
                  .b = keys.k_rows.tile(slot) + patch.begin * q_width,
                  .b_row = q_width,
                  .c = d_q + first * q_width,
                  .c_row = q_width,
                  .rows = count,
                  .columns = q_width,
                  .depth = seen,
                  .accumulate = true});
    math.product({.a = {d_s_seen, 1, score_width},
                  .b = q_rows,
                  .b_row = q_width,
                  .c = d_k + key * q_width,
                  .c_row = q_width,
                  .rows = seen,
                  .columns = q_width,
                  .depth = count,
                  .accumulate = true});
    math.product({.a = {p_seen, 1, score_width},
                  .b = d_o_rows,
                  .b_row = o_width,
                  .c = d_v + key * o_width,
                  .c_row = o_width,
                  .rows = seen,
                  .columns = o_width,
                  .depth = count,
                  .accumulate = true});
  }

  if (!gradient.d_q) return;
  for (int64_t i = 0; i < rows; ++i) {
    T* const out = gradient.d_q.As<T>() + row_of(i) * key_width;
    for (int64_t c = 0; c < key_width; ++c) {
      out[c] = (gradient.overwrite_q ? T(0) : out[c]) + T(args.scale) * d_q[i * q_width + c];
    }
  }
}

}  // namespace

template <typename T>
void BackwardBranch(const BranchArgs& args, const BranchGradient& gradient, int64_t key_tile,
                    const Visibility& visible) {
  static thread_local PackedKeys<T> this_keys;
  static thread_local Scratch<T> d_k_memory, d_v_memory;
  PackedKeys<T>& keys = this_keys;  // the calling thread's, shared by all

  const int64_t groups = args.kv.k.dim(1);
  const std::vector<QueryTile> queries = CutForHeads(args.segments, args.q.dim(1) / groups);
  for (int64_t group = 0; group < groups; ++group) {
    keys.map.Build(queries, group, visible, args.kv.pages, args.kv.k.dim(0), key_tile);
    keys.k_rows.PackRows(keys.map, args.kv.k, group);
    keys.v_rows.PackRows(keys.map, args.kv.v, group);
    keys.k_columns.PackColumns(keys.map, args.kv.k, group);
    keys.v_columns.PackColumns(keys.map, args.kv.v, group);
    const int64_t k_size = keys.map.slots() * key_tile * PadRow<T>(args.kv.k.dim(2));
    const int64_t v_size = keys.map.slots() * key_tile * PadRow<T>(args.kv.v.dim(2));
    T* const d_k = d_k_memory.Get(kParts * k_size);
    T* const d_v = d_v_memory.Get(kParts * v_size);
#pragma omp parallel for schedule(dynamic)
    for (int64_t part = 0; part < kParts; ++part) {
      std::fill_n(d_k + part * k_size, k_size, T(0));
      std::fill_n(d_v + part * v_size, v_size, T(0));
      for (int64_t i = part; i < std::ssize(queries); i += kParts) {
        BackwardTile(args, gradient, visible, keys, queries[i], group, d_k + part * k_size, d_v + part * v_size);
      }
    }
    if (gradient.d_k) AddTileRows(keys.map, d_k, kParts, gradient.d_k, group);
    if (gradient.d_v) AddTileRows(keys.map, d_v, kParts, gradient.d_v, group);
  }
}

template void BackwardBranch<float>(const BranchArgs&, const BranchGradient&, int64_t, const Visibility&);
template void BackwardBranch<double>(const BranchArgs&, const BranchGradient&, int64_t, const Visibility&);

}  // namespace longspan
