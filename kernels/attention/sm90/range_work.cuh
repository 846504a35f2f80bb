// The work of Hopper's range kernels, query tiles against key tiles, and the warps that bring it to shared memory.
//
// A tile of keys or values comes in one copy where one page holds it and all of its rows are there, else in parts. Rows
// that no query of the segment sees may be anything, or nowhere: of a part with such rows each row is copied by itself,
// and zeros take their place, since a weight of 0 times NaN would be NaN.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/sm90/key_rows.cuh"
#include "kernels/attention/sm90/resident.cuh"
#include "kernels/attention/sm90/row_softmax.cuh"
#include "kernels/attention/sm90/tensor_map.cuh"

namespace longspan {

constexpr int kTileRows = 128;
constexpr int kWarpgroupRows = 64;
constexpr int kTileKeys = 128;
// Tiles of keys and of values in shared memory: narrow ones are used up sooner than a copy takes.
constexpr int KeyStages(int width) { return width == 64 ? 4 : 2; }
constexpr int kQueryChunkBytes = kTileRows * kChunkRowBytes, kKeyChunkBytes = kTileKeys * kChunkRowBytes;

using RangeParams = BranchParams<RangeSight>;

// Of a page's rows, what one copy brings of a tile that no page holds whole.
inline int PartRows(int page_rows) { return page_rows % kTileKeys != 0 && page_rows % 64 == 0 ? 64 : 16; }

// How the copy engine reads keys or values [R,G,W]: boxes of kTileKeys and of part_rows rows.
struct RowMaps {
  CUtensorMap tiles, parts;
  int part_rows;
};

inline RowMaps RowMapsOf(const char* operation, const void* x, int width, const RangeParams& params) {
  const int part_rows = PartRows(params.page_rows);
  // How many rows there are the table alone knows; it leads to none beyond.
  const auto map = [&](int rows) { return RowsMap(operation, x, INT32_MAX, params.groups, width, rows, 1); };
  return {map(kTileKeys), map(part_rows), part_rows};
}

// Rows of q, o and their gradients that the segments speak of.
inline int QueryRows(const QueryTilesGpu& queries) {
  int rows = 0;
  for (int i = 0; i < queries.count; ++i) rows = std::max(rows, queries.row[i] + queries.length[i]);
  return rows;
}

struct RangeMaps {
  CUtensorMap q, o;  // [T,H,K] and [T,H,V]: boxes of a tile's queries, of a warpgroup's
  RowMaps k, v;
};

// What the consumers need to know of a query tile.
struct TileHead {
  int64_t out_row;            // of [T,H]: the first query's first head of the group
  int first_row, first_head;  // that
  int rows;                   // of the tile, that count
  int first_tile, end_tile;
};

template <int KW, int VW>
struct RangeShared {
  static constexpr int kQueryStages = KW > 128 ? 1 : 2, kStages = KeyStages(KW);
  Bf16 q[kQueryStages][kTileRows * KW];  // and then o
  Bf16 k[kStages][kTileKeys * KW];
  Bf16 v[kStages][kTileKeys * VW];
  SpanGpu seen[kQueryStages][kTileRows];  // by query
  TileHead head[kQueryStages];
  uint64_t q_full[kQueryStages], q_empty[kQueryStages];
  uint64_t k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
};

// A query tile of one group, and its key tiles.
struct RangeItem {
  QueryTileGpu queries;
  int group;
  SpanGpu present;  // the key rows that some query of the segment sees: no others may be read
  int first_tile, end_tile;
};

// Number `index`: the last queries, which see most, first, and the groups of a tile one after another.
__device__ inline RangeItem FindItem(const RangeParams& params, int index) {
  const QueryTilesGpu& cut = params.queries;
  const int tile = cut.first_tile[cut.count] - 1 - index / params.groups, segment = SegmentOf(cut, tile);
  RangeItem item;
  item.queries = FindQueries(cut, tile, segment);
  item.group = index % params.groups;
  item.present = params.sight.SeenByAny(cut.begin[segment], cut.begin[segment] + cut.length[segment] - 1);
  const int position = item.queries.position;
  const SpanGpu seen = params.sight.SeenByAny(position, position + item.queries.count - 1);
  item.first_tile = seen.begin / kTileKeys;
  item.end_tile = seen.begin < seen.end ? (seen.end - 1) / kTileKeys + 1 : item.first_tile;
  return item;
}

__device__ inline TileHead HeadOf(const RangeParams& params, const RangeItem& item) {
  const int group_heads = params.group_heads(), first_head = item.group * group_heads;
  return {static_cast<int64_t>(item.queries.row) * params.heads + first_head,
          item.queries.row,
          first_head,
          item.queries.count * group_heads,
          item.first_tile,
          item.end_tile};
}

__device__ inline int ItemCount(const RangeParams& params) {
  return params.queries.first_tile[params.queries.count] * params.groups;
}

// ---- The warps that bring them -------------------------------------------------------------------------------------

// The queries, and what each sees.
template <int KW, int VW>
__device__ void BringQueries(const RangeParams& params, const CUtensorMap* map, RangeShared<KW, VW>& shared) {
  const int lane = threadIdx.x % 32, group_heads = params.group_heads();
  Ring<RangeShared<KW, VW>::kQueryStages> ring;
  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x, ring.Next()) {
    const RangeItem item = FindItem(params, index);
    WaitBarrier(&shared.q_empty[ring.at], ring.parity ^ 1);
    for (int i = lane; i < item.queries.count; i += 32) {
      shared.seen[ring.at][i] = params.sight.Seen(item.queries.position + i);
    }
    if (lane == 0) shared.head[ring.at] = HeadOf(params, item);
    if (lane != 0) {
      Arrive(&shared.q_full[ring.at]);
      continue;
    }
    // A whole tile's, whatever counts: rows after the segment's are the next one's, or zeros after the last.
    ArriveAndExpect(&shared.q_full[ring.at], params.queries.tile * group_heads * KW * sizeof(Bf16));
    for (int chunk = 0; chunk < KW / kChunk; ++chunk) {
      CopyBox(SharedAddress(shared.q[ring.at]) + chunk * kQueryChunkBytes, map, chunk * kChunk,
              item.group * group_heads, item.queries.row, &shared.q_full[ring.at]);
    }
  }
}

// Key rows [first, first+kTileKeys) of x [R,G,W] to `stage`, once await() returns: by a warp. find(first, count) is the
// buffer row of rows that may be read and lie one after another, else -1.
template <int W, typename Find, typename Await>
__device__ void BringTile(const RangeParams& params, const RowMaps& maps, const void* x, int group, int first,
                          Bf16 (&to)[kTileKeys * W], uint64_t* full, const Find& find, const Await& await) {
  const int lane = threadIdx.x % 32;
  const int whole = find(first, kTileKeys);
  const int my_part =
      whole < 0 && lane * maps.part_rows < kTileKeys ? find(first + lane * maps.part_rows, maps.part_rows) : -1;
  const uint32_t stage = SharedAddress(to);
  const auto copy = [&](const CUtensorMap* map, int row, int key) {
    if (lane != 0) return;
    for (int chunk = 0; chunk < W / kChunk; ++chunk) {
      CopyBox(stage + key * kChunkRowBytes + chunk * kKeyChunkBytes, map, chunk * kChunk, group, row, full);
    }
  };
  await();
  int copied = kTileKeys;
  if (whole >= 0) {
    copy(&maps.tiles, whole, 0);
  } else {
    for (int i = 0; i * maps.part_rows < kTileKeys; ++i) {
      const int part = __shfl_sync(~0u, my_part, i), key = i * maps.part_rows;
      if (part >= 0) {
        copy(&maps.parts, part, key);
      } else {
        copied -= maps.part_rows;
        CopyRows<W, kKeyChunkBytes>(stage + key * kChunkRowBytes, static_cast<const Bf16*>(x), params, group,
                                    first + key, maps.part_rows, find);
      }
    }
    __syncwarp();
  }
  if (lane == 0) ArriveAndExpect(full, copied * W * sizeof(Bf16));
}

// Keys or values, x [R,G,W]; find(item, first, count).
template <int W, int Stages, typename Find>
__device__ void BringRows(const RangeParams& params, const RowMaps& maps, const void* x,
                          Bf16 (&stages)[Stages][kTileKeys * W], uint64_t* full, uint64_t* empty, const Find& find) {
  Ring<Stages> ring;
  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x) {
    const RangeItem item = FindItem(params, index);
    for (int tile = item.end_tile - 1; tile >= item.first_tile; --tile, ring.Next()) {
      BringTile<W>(
          params, maps, x, item.group, tile * kTileKeys, stages[ring.at], &full[ring.at],
          [&](int first, int count) { return find(item, first, count); },
          [&] { WaitBarrier(&empty[ring.at], ring.parity ^ 1); });
    }
  }
}

}  // namespace longspan
