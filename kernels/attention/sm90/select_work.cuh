// The work of Hopper's selection, tiles of queries against tiles of compressed keys, and the warps that bring it to
// shared memory.
//
// Keys are rows of the products, so that what lies in rows that nobody sees cannot reach the scores of others: a tile
// comes in one copy wherever one page holds it, whatever its unseen rows hold.
#pragma once

#include <math_constants.h>

#include "kernels/attention/gpu/contest.cuh"
#include "kernels/attention/sm90/key_rows.cuh"

namespace longspan {

constexpr int kProductKeys = 64;  // rows of a product, and of a copy
constexpr int kTileKeys = 128;    // what is handed on to the contest at once
constexpr int kTileQueries = 16;  // 8 for each of two warpgroups
constexpr int kHalfWarp = 16;
constexpr int kContests = 2;      // of half a warp: 16 queries are 4 warps'
constexpr int kMostOffered = 32;  // blocks at once
constexpr int kKeyChunkBytes = kProductKeys * kChunkRowBytes;
constexpr int kSumStride = kTileKeys + 4;  // queries 2c and rows g of a warp's store: 32 different banks

// A block in the contest.
struct OfferedBlock {
  float rank;
  int block;
};

// Shared memory of a block. Heads is a power of two that holds the heads of a group.
template <int KW, int Heads>
struct SelectShared {
  static constexpr int kQueryStages = KW > 128 ? 1 : 2, kKeyStages = 4;
  static constexpr int kSumStages = KW * Heads > 1024 ? 3 : 6;  // the contest holds up to 3 tiles
  static constexpr int kColumns = 8 * Heads;  // of a warpgroup's products: head by head, 8 queries each
  static constexpr int kQueryBytes = kColumns * kChunkRowBytes, kQueryChunkBytes = 2 * kQueryBytes;
  Bf16 q[kQueryStages][2 * kColumns * KW];
  Bf16 k[kKeyStages][kProductKeys * KW];
  float sums[kSumStages][kTileQueries][kSumStride];  // of the probabilities of a group's heads
  float lse[kQueryStages][2][Heads][8];              // in units of log2
  SpanGpu seen[kQueryStages][kTileQueries];          // ends never fall
  SpanGpu tiles[kQueryStages];                       // of keys; empty after the last queries
  OfferedBlock offered[kTileQueries][kMostOffered];
  uint64_t q_full[kQueryStages], q_empty[kQueryStages], k_full[kKeyStages], k_empty[kKeyStages];
  uint64_t sums_full[2][kSumStages], sums_empty[2][kSumStages];
};

// A query tile of one group, and the key tiles that its scores need.
struct SelectItem {
  QueryTileGpu queries;
  int group;
  SpanGpu present;             // the key rows that some query of the segment sees: no others need be anywhere
  int first_block, end_block;  // those whose scores may be asked for
  int first_tile, end_tile;
};

// Number `index`: the last queries, which see most, first, and the groups of a tile one after another.
__device__ inline SelectItem FindItem(const SelectParams& params, int index) {
  const QueryTilesGpu& cut = params.queries;
  const int tile = cut.first_tile[cut.count] - 1 - index / params.groups, segment = SegmentOf(cut, tile);
  SelectItem item;
  item.queries = FindQueries(cut, tile, segment);
  item.group = index % params.groups;
  item.present = params.sight.SeenByAny(cut.begin[segment], cut.begin[segment] + cut.length[segment] - 1);
  const int first = item.queries.position, own = (first + item.queries.count - 1) / params.select_block;
  item.first_block = params.sight.DocStart(first) / params.select_block;
  item.end_block = own + 1 - (params.scores == nullptr ? params.local : 0);
  item.first_tile = item.first_block * params.block_cells / kTileKeys;
  // While all visible blocks fit, nobody asks for their order.
  const bool needed = params.scores != nullptr || own + 1 - item.first_block > params.select;
  item.end_tile = needed && item.first_block < item.end_block
                      ? (item.end_block * params.block_cells + params.sight.lead - 1) / kTileKeys + 1
                      : item.first_tile;
  return item;
}

__device__ inline int ItemCount(const SelectParams& params) {
  return params.queries.first_tile[params.queries.count] * params.groups;
}

// ---- The warps that bring them -------------------------------------------------------------------------------------

// The queries, their lse and what each sees; at last an empty tile.
template <int KW, int Heads>
__device__ void BringQueries(const SelectParams& params, const CUtensorMap* map, SelectShared<KW, Heads>& shared) {
  using Shared = SelectShared<KW, Heads>;
  const int lane = threadIdx.x % 32, group_heads = params.group_heads();
  Ring<Shared::kQueryStages> ring;
  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x) {
    const SelectItem item = FindItem(params, index);
    if (item.first_tile == item.end_tile) continue;
    WaitBarrier(&shared.q_empty[ring.at], ring.parity ^ 1);
    if (lane < kTileQueries) {
      // Those that are not there see what the last one sees.
      shared.seen[ring.at][lane] = params.sight.Seen(item.queries.position + min(lane, item.queries.count - 1));
    }
    const float* const lse =
        params.lse + static_cast<int64_t>(item.queries.row) * params.heads + item.group * group_heads;
#pragma unroll 4
    for (int i = lane; i < kTileQueries * Heads; i += 32) {
      const int query = i / Heads, head = i % Heads;
      float log2 = CUDART_INF_F;  // a head that is not there adds 0
      if (head < group_heads && query < item.queries.count) {
        log2 = lse[static_cast<int64_t>(query) * params.heads + head] * CUDART_L2E_F;
      }
      shared.lse[ring.at][query / 8][head][query % 8] = log2;
    }
    if (lane == 0) shared.tiles[ring.at] = {item.first_tile, item.end_tile};
    if (lane != 0) {
      Arrive(&shared.q_full[ring.at]);
    } else {
      // A whole tile's, whatever counts: rows after the segment's and heads after the group's are others', or zeros.
      ArriveAndExpect(&shared.q_full[ring.at], sizeof(shared.q[0]));
      for (int chunk = 0; chunk < KW / kChunk; ++chunk) {
        for (int half = 0; half < 2; ++half) {
          CopyBox(SharedAddress(shared.q[ring.at]) + chunk * Shared::kQueryChunkBytes + half * Shared::kQueryBytes, map,
                  0, item.queries.row + half * 8, item.group * group_heads, chunk, &shared.q_full[ring.at]);
        }
      }
    }
    ring.Next();
  }
  WaitBarrier(&shared.q_empty[ring.at], ring.parity ^ 1);
  if (lane == 0) shared.tiles[ring.at] = {0, 0};
  Arrive(&shared.q_full[ring.at]);
}

// Those of a product, from row `first` on, row by row; rows that are not present are left out. By a warp.
template <int KW>
__device__ void CopyKeys(uint32_t to, const SelectParams& params, int group, SpanGpu present, int first) {
  constexpr int kPieces = KW / 8;
  const auto* const k = static_cast<const Bf16*>(params.k);
  for (int done = 0; done < kProductKeys; done += 32) {
    const int row = first + done + static_cast<int>(threadIdx.x % 32);
    const int64_t place = row >= present.begin && row < present.end ? PageRow(params.table, params.page_rows, row) : -1;
#pragma unroll 4
    for (int i = threadIdx.x % 32; i < 32 * kPieces; i += 32) {
      const int64_t from = __shfl_sync(~0u, place, i / kPieces);
      const int piece = i % kPieces;
      if (from < 0) continue;
      CopyAsync16(to + piece / 8 * kKeyChunkBytes + Swizzled(done + i / kPieces, piece % 8),
                  k + (from * params.groups + group) * KW + piece * 8, true);
    }
  }
  CommitCopies();
  WaitForCopies<0>();
  FenceForAsync();
}

template <int KW, int Heads>
__device__ void BringKeys(const SelectParams& params, const CUtensorMap* map, SelectShared<KW, Heads>& shared) {
  const int lane = threadIdx.x % 32;
  Ring<SelectShared<KW, Heads>::kKeyStages> ring;
  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x) {
    const SelectItem item = FindItem(params, index);
    const int end = item.end_tile * kTileKeys;
    for (int first = item.first_tile * kTileKeys; first < end; first += kProductKeys, ring.Next()) {
      const int page = first / params.page_rows, in_page = first - page * params.page_rows;
      const bool any = first < item.present.end, whole = any && in_page + kProductKeys <= params.page_rows;
      const int slot = whole ? __ldg(params.table + page) : -1;
      const uint32_t stage = SharedAddress(shared.k[ring.at]);
      WaitBarrier(&shared.k_empty[ring.at], ring.parity ^ 1);
      if (any && !whole) {
        CopyKeys<KW>(stage, params, item.group, item.present, first);
        __syncwarp();
      }
      if (lane != 0) continue;
      if (slot < 0) {
        Arrive(&shared.k_full[ring.at]);
        continue;
      }
      ArriveAndExpect(&shared.k_full[ring.at], sizeof(shared.k[0]));
      for (int chunk = 0; chunk < KW / kChunk; ++chunk) {
        CopyBox(stage + chunk * kKeyChunkBytes, map, chunk * kChunk, item.group, slot * params.page_rows + in_page,
                &shared.k_full[ring.at]);
      }
    }
  }
}

}  // namespace longspan
