// Key tiles against steps of queries on Hopper: the work of the passes that own keys, and the warps that bring it.
//
// A block has a tile of 128 keys of one group and walks over the queries that see any of them, 64 rows (queries x heads
// of the group) a step. Two warpgroups own 64 keys each; a third's warps bring q, d_o and what is known of their rows.
#pragma once

#include "kernels/attention/sm90/key_weights.cuh"
#include "kernels/attention/sm90/range_backward.cuh"

namespace longspan {

constexpr int kWalkRows = kStepRows;
constexpr int kWalkChunkBytes = kWalkRows * kChunkRowBytes;
constexpr int kMaxParts = 4096;     // of all key tiles
constexpr int kShortWindow = 2048;  // below: the queries that see a key are near one another

// The call's query tiles are its steps. A part is what a key tile has of steps [part * steps, (part + 1) * steps).
struct KeysWork {
  int tiles = 1;   // of keys
  int parts = 1;   // of a tile
  int steps = 1;   // of a part
  int period = 1;  // steps after which blocks that walk together begin anew
  // The sums of parts, [pairs, G, slots] of [kTileKeys, K+V]. A pair is a key tile from either end, since many see the
  // first and few the last: the one's parts have slots from the first on, the other's from the last. Null when parts ==
  // 1.
  float* partial = nullptr;
  int slots = 0;

  __device__ int64_t Partial(int groups, int tile, int group, int part) const {
    const bool early = 2 * tile < tiles;
    const int from_end = parts - 1 - part;
    return (static_cast<int64_t>(early ? tile : tiles - 1 - tile) * groups + group) * slots +
           (early ? from_end : slots - 1 - from_end);
  }
};

struct KeysMaps {
  // By segment, whose rows end where the map does: what comes after them is zeros.
  CUtensorMap q[kMaxSegments], d_o[kMaxSegments];
  RowMaps k, v;
};

// The parameters with queries cut in steps, their work, and what that takes of scratch.
BackwardRange CutInSteps(const BackwardRange& params);
KeysWork PlanKeys(const BackwardRange& cut);
int64_t PartialBytes(const BackwardRange& cut, const KeysWork& work);
KeysMaps MapKeys(const char* operation, const BackwardRange& cut);
// f(segment, its first local row, its rows) for those that are not empty.
template <typename F>
void ForSegments(const QueryTilesGpu& queries, const F& f) {
  for (int i = 0; i < queries.count; ++i) {
    if (queries.length[i] > 0) f(i, int64_t{queries.row[i]}, queries.length[i]);
  }
}
// Adds the parts of each key tile in their order to d_k and d_v.
void SumParts(cudaStream_t stream, const BackwardRange& cut, const KeysWork& work);

// `More` comes first: tiles that begin at multiples of 1024 bytes, too.
struct NoMore {};
template <int KW, int VW, int Stages, typename More = NoMore>
struct KeysShared : More {
  static constexpr int kStages = Stages;  // of steps: this one and those under way
  Bf16 k[kTileKeys * KW];
  Bf16 v[kTileKeys * VW];
  Bf16 q[kStages][kWalkRows * KW];
  Bf16 d_o[kStages][kWalkRows * VW];
  float lse_log2[kStages][kWalkRows], delta[kStages][kWalkRows];
  SpanGpu seen[kStages][kWalkRows];
  SpanGpu all_see[kStages];     // the keys that every row of the step sees
  SpanGpu steps[kMaxSegments];  // of each segment, those that see any of the keys
  uint64_t k_full, v_full;
  uint64_t q_full[kStages], d_o_full[kStages], note_full[kStages], empty[kStages];
};

// ---- Which steps ----------------------------------------------------------------------------------------------------

__device__ inline SpanGpu Common(SpanGpu a, SpanGpu b) { return {max(a.begin, b.begin), min(a.end, b.end)}; }

// The key tiles that the queries of a step of a segment see, and maybe one that they do not. Neither end ever falls as
// steps ascend.
__device__ inline SpanGpu KeyTilesOf(const BackwardRange& params, int segment, int step) {
  const QueryTilesGpu& queries = params.queries;
  const int first = (step - queries.first_tile[segment]) * queries.tile,
            last = min(first + queries.tile, queries.length[segment]) - 1, begin = queries.begin[segment];
  return {params.sight.Seen(begin + first).begin / kTileKeys,
          (params.sight.Seen(begin + last, 0).end + kTileKeys - 1) / kTileKeys};
}

// The steps of a segment whose KeyTilesOf has the tile.
__device__ inline SpanGpu StepsOf(const BackwardRange& params, int segment, int tile) {
  const auto first_where = [&](const auto& holds) {
    int low = params.queries.first_tile[segment], high = params.queries.first_tile[segment + 1];
    while (low < high) {
      const int middle = low + (high - low) / 2;
      if (holds(KeyTilesOf(params, segment, middle))) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  };
  return {first_where([&](SpanGpu tiles) { return tiles.end > tile; }),
          first_where([&](SpanGpu tiles) { return tiles.begin > tile; })};
}

// What a block does.
struct KeysItem {
  int tile, group;
  SpanGpu keys;
  SpanGpu part;  // of the call's steps
  int64_t partial;

  // Number `index`: the last steps, which see most keys, first; after one another all keys and groups of the same
  // steps.
  __device__ KeysItem(const BackwardRange& params, const KeysWork& work, int index)
      : KeysItem(params, work, index / params.groups % work.tiles, index % params.groups,
                 work.parts - 1 - index / params.groups / work.tiles) {}
  __device__ KeysItem(const BackwardRange& params, const KeysWork& work, int tile, int group, int part)
      : tile(tile),
        group(group),
        keys{tile * kTileKeys, min((tile + 1) * kTileKeys, params.key_rows)},
        part{part * work.steps, (part + 1) * work.steps},
        partial(work.Partial(params.groups, tile, group, part)) {}
};

// Whether some step of the item's part may see its keys: many items have nothing to do and need no search of StepsOf.
__device__ inline bool MaySee(const BackwardRange& params, const KeysItem& item) {
  for (int i = 0; i < params.queries.count; ++i) {
    const SpanGpu steps = Common(item.part, {params.queries.first_tile[i], params.queries.first_tile[i + 1]});
    if (steps.begin < steps.end && KeyTilesOf(params, i, steps.begin).begin <= item.tile &&
        item.tile < KeyTilesOf(params, i, steps.end - 1).end) {
      return true;
    }
  }
  return false;
}

// The steps of an item, one segment after another, from those of its tile in each segment.
struct Walk {
  const SpanGpu* of_segments;
  int segments;
  SpanGpu part;
  int count = 0, start = 0;
  bool whole = true;  // all steps of the tile are the item's

  __device__ Walk(const SpanGpu* of_segments, int segments, SpanGpu part, int period)
      : of_segments(of_segments), segments(segments), part(part) {
    int first = -1;
    for (int i = 0; i < segments; ++i) {
      const SpanGpu all = of_segments[i], here = Common(all, part);
      whole &= all.begin >= all.end || (here.begin == all.begin && here.end == all.end);
      if (here.begin >= here.end) continue;
      if (first < 0) first = here.begin;
      count += here.end - here.begin;
    }
    // Last first, from where blocks at other keys are, too, so that they read the same queries at about the same time.
    start = count - 1 - (first + count) % period;
    if (start < 0) start = count - 1;
  }

  // The number of the step that is taken as the i-th, and its segment.
  __device__ int Step(int i, int* segment) const {
    int index = start - i;
    if (index < 0) index += count;
    for (int at = 0;; ++at) {
      const SpanGpu here = Common(of_segments[at], part);
      const int length = max(0, here.end - here.begin);
      if (index < length) {
        *segment = at;
        return here.begin + index;
      }
      index -= length;
    }
  }
};

// ---- The warps that bring them --------------------------------------------------------------------------------------

// The item's keys or values, x [R,G,W]. Rows that nobody sees may be anything, or nowhere, and become zeros.
template <int W>
__device__ void BringKeys(const BackwardRange& params, const RowMaps& maps, const void* x, const KeysItem& item,
                          Bf16 (&to)[kTileKeys * W], uint64_t* full) {
  constexpr int kRowsOfLane = kTileKeys / 32;
  const int first = item.keys.begin, lane = threadIdx.x % 32;
  bool mine = true;
  for (int i = 0; i < kRowsOfLane; ++i) mine &= RowSeen(params, first + lane * kRowsOfLane + i);
  const unsigned seen = __ballot_sync(~0u, mine);
  const auto find = [&](int row, int count) {
    if (count == 1) return RowSeen(params, row) ? RowsInPage(params, row, 1) : -1;
    const unsigned asked = (~0u >> (32 - count / kRowsOfLane)) << (row - first) / kRowsOfLane;
    return (seen & asked) == asked ? RowsInPage(params, row, count) : -1;
  };
  BringTile<W>(params, maps, x, item.group, first, to, full, find, [] {});
}

// q or d_o of the steps, x [T,H,W], by one thread; maps by segment.
template <int W, int Stages>
__device__ void BringSteps(const BackwardRange& params, const CUtensorMap* maps, const KeysItem& item, const Walk& walk,
                           Bf16 (&stages)[Stages][kWalkRows * W], uint64_t* full, uint64_t* empty) {
  const QueryTilesGpu& queries = params.queries;
  const int group_heads = params.group_heads(), bytes = queries.tile * group_heads * W * sizeof(Bf16);
  Ring<Stages> ring;
  for (int i = 0; i < walk.count; ++i, ring.Next()) {
    int segment;
    const int step = walk.Step(i, &segment), row = (step - queries.first_tile[segment]) * queries.tile;
    WaitBarrier(&empty[ring.at], ring.parity ^ 1);
    ArriveAndExpect(&full[ring.at], bytes);
    for (int chunk = 0; chunk < W / kChunk; ++chunk) {
      CopyBox(SharedAddress(stages[ring.at]) + chunk * kWalkChunkBytes, &maps[segment], chunk * kChunk,
              item.group * group_heads, row, &full[ring.at]);
    }
  }
}

// Whether all queries from position `first` on up to `last` see all rows of the key tile that begins with row `begin`.
// Without a division.
__device__ inline bool TileSeen(const RangeSight& sight, int begin, int first, int last) {
  const int64_t row = begin - sight.lead;
  return row >= 0 && (row + kTileKeys - 1) * sight.stride + sight.block - 1 <= first &&
         row * sight.stride >= max(sight.DocStart(last), last - sight.window + 1);
}

// What is known of the rows of every `by`-th step from step `first` on, by a warp. Steps pass here one after another:
// all reads of a step are under way at once, and spans, which take divisions, are made only where some row does not see
// the whole tile.
template <typename Shared>
__device__ void BringNotes(const BackwardRange& params, const KeysItem& item, const Walk& walk, Shared& shared,
                           int first, int by) {
  constexpr int kRowsOfLane = kWalkRows / 32;
  const QueryTilesGpu& queries = params.queries;
  const int lane = threadIdx.x % 32, group_heads = params.group_heads();
  int query[kRowsOfLane], place[kRowsOfLane];  // of the lane's rows: the query of a step; from the step's first row on
#pragma unroll
  for (int j = 0; j < kRowsOfLane; ++j) {
    query[j] = (j * 32 + lane) / group_heads;
    place[j] = query[j] * params.heads + (j * 32 + lane) % group_heads;
  }
  for (int i = first; i < walk.count; i += by) {
    int segment;
    const int step = walk.Step(i, &segment), offset = (step - queries.first_tile[segment]) * queries.tile,
              count = min(queries.tile, queries.length[segment] - offset), position = queries.begin[segment] + offset;
    const int64_t row = static_cast<int64_t>(queries.row[segment] + offset) * params.heads + item.group * group_heads;
    float lse[kRowsOfLane], delta[kRowsOfLane];
#pragma unroll
    for (int j = 0; j < kRowsOfLane; ++j) {
      const bool there = query[j] < count;
      lse[j] = there ? params.lse[row + place[j]] : -INFINITY;
      delta[j] = there ? params.delta[row + place[j]] : 0;
    }
    SpanGpu seen[kRowsOfLane], all = {INT_MIN, INT_MAX};
    const bool edge = !TileSeen(params.sight, item.keys.begin, position, position + count - 1);
    if (edge) {
#pragma unroll
      for (int j = 0; j < kRowsOfLane; ++j) seen[j] = params.sight.Seen(position + min(query[j], count - 1));
      // Neither end ever falls as rows ascend.
      all = {__shfl_sync(~0u, seen[kRowsOfLane - 1].begin, 31), __shfl_sync(~0u, seen[0].end, 0)};
    }
    const int at = i % Shared::kStages;
    WaitBarrier(&shared.empty[at], i / Shared::kStages % 2 ^ 1);
#pragma unroll
    for (int j = 0; j < kRowsOfLane; ++j) {
      const RowStatistics statistics(lse[j], delta[j]);
      shared.lse_log2[at][j * 32 + lane] = statistics.lse_log2;
      shared.delta[at][j * 32 + lane] = statistics.delta;
      if (edge) shared.seen[at][j * 32 + lane] = seen[j];
    }
    if (lane == 0) shared.all_see[at] = all;
    Arrive(&shared.note_full[at]);
  }
}

// Before the block's threads part: the walk's steps, barriers, and zeros in rows of steps that no query fills.
template <typename Shared>
__device__ void StartKeys(const BackwardRange& params, const KeysItem& item, Shared& shared) {
  const QueryTilesGpu& queries = params.queries;
  if (threadIdx.x < queries.count) shared.steps[threadIdx.x] = StepsOf(params, threadIdx.x, item.tile);
  if (threadIdx.x == 0) {
    InitBarrier(&shared.k_full, 1);
    InitBarrier(&shared.v_full, 1);
    for (int i = 0; i < Shared::kStages; ++i) {
      InitBarrier(&shared.q_full[i], 1);
      InitBarrier(&shared.d_o_full[i], 1);
      InitBarrier(&shared.note_full[i], 32);
      InitBarrier(&shared.empty[i], 2 * kWarpgroup / 32);
    }
    PublishBarriers();
  }
  if (queries.tile * params.group_heads() == kWalkRows) return;
  const auto clear = [](auto& stages) {
    auto* const pieces = reinterpret_cast<uint4*>(stages);
    for (int i = threadIdx.x; i < static_cast<int>(sizeof(stages) / sizeof(uint4)); i += blockDim.x) pieces[i] = {};
  };
  clear(shared.q);
  clear(shared.d_o);
  FenceForAsync();
}

// The part of warps 0 to 2, and of 3 where it has nothing else to do.
template <int KW, int VW, bool kFourth, typename Shared>
__device__ void BringAll(const BackwardRange& params, const KeysMaps& maps, const KeysItem& item, const Walk& walk,
                         Shared& shared) {
  const int warp = threadIdx.x / 32;
  const bool first = threadIdx.x % 32 == 0;
  if (warp == 0) {
    BringKeys<KW>(params, maps.k, params.k, item, shared.k, &shared.k_full);
    if (first) BringSteps<KW>(params, maps.q, item, walk, shared.q, shared.q_full, shared.empty);
  } else if (warp == 1) {
    BringKeys<VW>(params, maps.v, params.v, item, shared.v, &shared.v_full);
    if (first) BringSteps<VW>(params, maps.d_o, item, walk, shared.d_o, shared.d_o_full, shared.empty);
  } else if (kFourth || warp == 2) {
    BringNotes(params, item, walk, shared, warp - 2, kFourth ? 2 : 1);
  }
}

// ---- The warpgroups' last ------------------------------------------------------------------------------------------

// A warpgroup's sums to where they belong, or to the item's part.
template <int KW, int VW>
__device__ void WriteKeys(const BackwardRange& params, const KeysWork& work, const KeysItem& item, bool whole,
                          int warp_key, const float (&d_k)[KW / 2], const float (&d_v)[VW / 2]) {
  const int lane = threadIdx.x % 32;
  const RowFinder finder(params.table, params.page_rows, item.keys.begin, kTileKeys);
  float* const partial = work.partial + item.partial * kTileKeys * (KW + VW);
  const auto write = [&]<int W>(const float(&sum)[W / 2], float* d_x, float factor, int offset) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int row = warp_key + lane / 4 + j * 8;
      const int64_t place = whole && item.keys.begin + row < item.keys.end ? finder.at(row) : -1;
#pragma unroll
      for (int i = 0; i < W / 8; ++i) {
        const int channel = i * 8 + lane % 4 * 2;
        const float2 value = make_float2(sum[i * 4 + j * 2], sum[i * 4 + j * 2 + 1]);
        if (!whole) {
          *reinterpret_cast<float2*>(partial + row * (KW + VW) + offset + channel) = value;
        } else if (place >= 0 && d_x != nullptr) {
          AddToMemory(d_x + (place * params.groups + item.group) * W + channel, factor * value.x, factor * value.y);
        }
      }
    }
  };
  write.template operator()<KW>(d_k, params.d_k, params.scale, 0);
  write.template operator()<VW>(d_v, params.d_v, 1, KW);
}

}  // namespace longspan
