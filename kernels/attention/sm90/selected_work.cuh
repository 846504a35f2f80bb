// The work of Hopper's selected kernels, neighbouring queries against the blocks that they chose, and the warps that
// share it out.
//
// A tile is a few neighbouring queries of a segment and up to 16 heads of one group. A block stays and takes tiles in
// turn. Most of its warps have a query each: its heads are the 16 rows of a warp's product. One warp merges the
// queries' lists, two bring every block that any query chose, once, in strips of up to 64 rows, and each query's warp
// is told of the strips it wants. So loads are shared by neighbours that agree, and no product is made in vain.
//
// A query meets its own blocks in the order of its list, whoever its neighbours are: its bits depend on nothing else.
#pragma once

#include <algorithm>

#include "kernels/attention/gpu/warp_rows.cuh"
#include "kernels/attention/sm90/key_rows.cuh"
#include "kernels/attention/sm90/resident.cuh"
#include "kernels/attention/sm90/tensor_map.cuh"

namespace longspan {

using SelectedParams = BranchParams<SelectedSight>;

constexpr int kRowHeads = 16;  // of a tile: the rows of a warp's product
constexpr int kStripKeys = 64;
constexpr uint32_t kStripChunkBytes = kStripKeys * kChunkRowBytes;

struct StripMaps {
  CUtensorMap k, v;  // [R,G,K] and [R,G,V]: boxes of a strip
};

// What a query's warp does next: a strip, or no more of this tile.
struct Turn {
  int first_key;
  // Of the stage where the strip is, the parity of the phase in which it comes there, the strip's keys.
  uint32_t stage_parity_keys;

  static constexpr uint32_t kEnd = ~0u;
  __device__ static Turn Of(int first_key, int stage, uint32_t parity, int keys) {
    return {first_key, static_cast<uint32_t>(stage) | parity << 8 | static_cast<uint32_t>(keys) << 16};
  }
  __device__ int stage() const { return stage_parity_keys & 0xFF; }
  __device__ uint32_t parity() const { return stage_parity_keys >> 8 & 1; }
  __device__ int keys() const { return stage_parity_keys >> 16; }
};

// What the warps that bring a strip need to know of it.
struct Order {
  int first, end;  // keys: rows from `first` on, of which nobody sees those from `end` on
  int group;       // negative: no more strips
};

template <int KW, int VW, int Queries>
struct SelectedShared {
  static constexpr int kQueries = Queries;
  static constexpr int kStages = std::min(12, 224 * 1024 / (kStripKeys * (KW + VW) * 2));
  static constexpr int kTurns = kStages + 2;
  Bf16 k[kStages][kStripKeys * KW];
  Bf16 v[kStages][kStripKeys * VW];
  Turn turns[kQueries][kTurns];
  Order orders[kStages];
  uint64_t told[kQueries][kTurns];
  uint64_t ordered[kStages], full[kStages], empty[kStages];
  uint64_t tile_done[2];

  // By one thread.
  __device__ void InitBarriers() {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(&ordered[i], 1);
      InitBarrier(&full[i], 2);
      InitBarrier(&empty[i], kQueries);
    }
    for (auto& barriers : told) {
      for (uint64_t& barrier : barriers) InitBarrier(&barrier, 1);
    }
    for (uint64_t& barrier : tile_done) InitBarrier(&barrier, kQueries);
    PublishBarriers();
  }
};

// A tile of queries and heads.
struct SelectedItem {
  QueryTileGpu queries;
  int group, first_head, heads;
};

__device__ inline int HeadParts(const SelectedParams& params) {
  return (params.group_heads() + kRowHeads - 1) / kRowHeads;
}

__device__ inline int ItemCount(const SelectedParams& params) {
  return params.queries.first_tile[params.queries.count] * params.groups * HeadParts(params);
}

// Number `index`: group by group, whose keys and values then stay in the cache.
__device__ inline SelectedItem FindItem(const SelectedParams& params, int index) {
  const int parts = HeadParts(params), tiles = params.queries.first_tile[params.queries.count];
  SelectedItem item;
  item.group = index / (tiles * parts);
  item.queries = FindQueries(params.queries, index / parts % tiles);
  item.first_head = index % parts * kRowHeads;
  item.heads = min(kRowHeads, params.group_heads() - item.first_head);
  return item;
}

// ---- The warps that bring blocks ------------------------------------------------------------------------------------

// Merges the lists of a tile's queries: orders the strips, and tells each query's warp its turns (lane q tells query
// q's). Never more than two tiles ahead of a warp, so that the turns which it has not taken are strips that hold a
// stage and the ends of two tiles: no more than kTurns.
template <typename Shared>
__device__ void MergeLists(const SelectedParams& params, Shared& shared) {
  constexpr int kNone = INT32_MAX, kQueries = Shared::kQueries;
  const int lane = threadIdx.x % 32, query = min(lane, kQueries - 1), block = params.sight.block,
            choices = params.sight.choices;
  Ring<Shared::kStages> ring;
  Ring<2> tile;
  // Kept, for the compiler would find them anew each time.
  uint32_t turns = SharedAddress(shared.turns[query]), told = SharedAddress(shared.told[query]);
  asm volatile("" : "+r"(turns), "+r"(told));
  int turn = 0;  // modulo kTurns
  const auto tell = [&](const Turn& what) {
    StoreShared(turns + turn * sizeof(Turn), what.first_key, what.stage_parity_keys);
    Arrive(told + turn * sizeof(uint64_t));
    turn = turn + 1 == Shared::kTurns ? 0 : turn + 1;
  };
  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x, tile.Next()) {
    const SelectedItem item = FindItem(params, index);
    const int position = item.queries.position + lane;
    // This lane's query's list: `chosen` is its next entry, `after` the one that follows.
    const bool there = lane < item.queries.count;
    const int32_t* const list = params.sight.Chosen(item.queries.row + (there ? lane : 0), params.groups, item.group);
    const auto entry = [&](int i) {
      const int found = there && i < choices ? __ldg(list + i) : -1;
      return found < 0 ? kNone : found;
    };
    int taken = 0, chosen = entry(0), after = entry(1);
    WaitBarrier(&shared.tile_done[tile.at], tile.parity ^ 1);
    if (lane < kQueries && chosen == kNone) tell({0, Turn::kEnd});
    while (true) {
      const int next = __reduce_min_sync(~0u, chosen);
      if (next == kNone) break;
      const bool mine = chosen == next;
      if (mine) {
        chosen = after;
        after = entry(++taken + 1);
      }
      const int begin = next * block, end = begin + block;
      for (int first = begin; first < end; first += kStripKeys) {
        const bool take = mine && first <= position;
        const unsigned takers = __ballot_sync(~0u, take);
        if (takers == 0) break;
        WaitBarrier(&shared.empty[ring.at], ring.parity ^ 1);
        if (lane == 0) {
          shared.orders[ring.at] = {first, min(end, item.queries.position + 32 - __clz(takers)), item.group};
          Arrive(&shared.ordered[ring.at]);
          const int others = kQueries - __popc(takers);
          if (others > 0) Arrive(SharedAddress(&shared.empty[ring.at]), others);
        }
        if (take) tell(Turn::Of(first, ring.at, ring.parity, min(end - first, kStripKeys)));
        ring.Next();
      }
      if (mine && chosen == kNone) tell({0, Turn::kEnd});
    }
  }
  WaitBarrier(&shared.empty[ring.at], ring.parity ^ 1);
  if (lane == 0) {
    shared.orders[ring.at] = {0, 0, -1};
    Arrive(&shared.ordered[ring.at]);
  }
}

// Keys or values, x [R,G,W].
template <int W, typename Shared>
__device__ void BringStrips(const SelectedParams& params, const CUtensorMap* map, const void* x,
                            Bf16 (*stages)[kStripKeys * W], Shared& shared) {
  const int lane = threadIdx.x % 32, rows = min(params.sight.block, kStripKeys);
  for (Ring<Shared::kStages> ring;; ring.Next()) {
    WaitBarrier(&shared.ordered[ring.at], ring.parity);
    const Order order = shared.orders[ring.at];
    if (order.group < 0) break;
    const uint32_t stage = SharedAddress(stages[ring.at]);
    uint64_t* const full = &shared.full[ring.at];
    const int whole = RowsInPage(params, order.first, rows);
    if (whole < 0) {
      CopyRows<W, kStripChunkBytes>(stage, static_cast<const Bf16*>(x), params, order.group, order.first, rows,
                                    [&](int first, int count) {
                                      return FindRows(params, {order.first, order.end}, first, count);
                                    });
      __syncwarp();
      if (lane == 0) Arrive(full);
    } else if (lane == 0) {
      ArriveAndExpect(full, rows * W * sizeof(Bf16));
#pragma unroll
      for (int chunk = 0; chunk < W / kChunk; ++chunk) {
        CopyBox(stage + chunk * kStripChunkBytes, map, chunk * kChunk, order.group, whole, full);
      }
    }
  }
}

// ---- The warps that have a query each -------------------------------------------------------------------------------

// A strip's rows as operand B, by rows (its channels are summed over) or by columns (its keys are), on the way to
// registers a few matrices before they are used.
template <int W, int Keys>
class StripOperand {
 public:
  // `tile`: the address of the first row.
  template <bool ByColumns>
  __device__ __forceinline__ void Begin(uint32_t tile) {
    const int lane = threadIdx.x % 32, matrix = lane / 8, row = lane % 8;
    lane_ =
        tile + (ByColumns ? Swizzled(matrix % 2 * 8 + row, matrix / 2) : Swizzled(matrix / 2 * 8 + row, matrix % 2));
#pragma unroll
    for (int t = 0; t < kAhead; ++t) Load<ByColumns>(t);
  }

  // s [16,Keys] += a [16,W] * rows^T
  __device__ __forceinline__ void TimesRows(const uint32_t (&a)[W / 16][4], float (&s)[Keys / 8][4]) {
#pragma unroll
    for (int t = 0; t < kLoads; ++t) {
      if (t + kAhead < kLoads) Load<false>(t + kAhead);
      const uint32_t(&b)[4] = b_[t % (kAhead + 1)];
      Mma(s[t % kSteps * 2], a[t / kSteps], b[0], b[1]);
      Mma(s[t % kSteps * 2 + 1], a[t / kSteps], b[2], b[3]);
    }
  }

  // sum [16,W] += p [16,Keys] * rows. With Masked the rows from `end` on may hold anything; p is 0 there.
  template <bool Masked>
  __device__ __forceinline__ void AddTimesColumns(const uint32_t (&p)[Keys / 16][4], int end, float (&sum)[W / 8][4]) {
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int t = 0; t < kLoads; ++t) {
      if (t + kAhead < kLoads) Load<true>(t + kAhead);
      const int i = t % (W / 16), step = t / (W / 16);
      uint32_t(&b)[4] = b_[t % (kAhead + 1)];
      if (Masked) {  // a weight of 0 times NaN would be NaN
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int key = step * 16 + j % 2 * 8 + column;
          b[j] &= (key < end ? 0xFFFFu : 0) | (key + 1 < end ? 0xFFFF0000u : 0);
        }
      }
      Mma(sum[i * 2], p[step], b[0], b[1]);
      Mma(sum[i * 2 + 1], p[step], b[2], b[3]);
    }
  }

 private:
  static constexpr int kAhead = 3;
  static constexpr int kSteps = Keys / 16, kLoads = W / 16 * kSteps;

  template <bool ByColumns>
  __device__ __forceinline__ void Load(int t) {
    const int step = ByColumns ? t / (W / 16) : t % kSteps, i = ByColumns ? t % (W / 16) : t / kSteps;
    // 16 channels on is 32 bytes on, which the swizzle turns into an exclusive or.
    LoadMatrices<ByColumns>(b_[t % (kAhead + 1)],
                            (lane_ ^ i % 4 * 32) + i / 4 * kStripChunkBytes + step * 16 * kChunkRowBytes);
  }

  uint32_t lane_;
  uint32_t b_[kAhead + 1][4];
};

// Scores of 16 rows, rounded, as operand A.
template <int Keys>
__device__ __forceinline__ void PackRows(const float (&s)[Keys / 8][4], uint32_t (&p)[Keys / 16][4]) {
#pragma unroll
  for (int i = 0; i < Keys / 16; ++i) {
    p[i][0] = PackBf16(s[i * 2][0], s[i * 2][1]);
    p[i][1] = PackBf16(s[i * 2][2], s[i * 2][3]);
    p[i][2] = PackBf16(s[i * 2 + 1][0], s[i * 2 + 1][1]);
    p[i][3] = PackBf16(s[i * 2 + 1][2], s[i * 2 + 1][3]);
  }
}

// Query is what a kernel makes of a query's rows:
//   kKeyWidth, kValueWidth, kQueries (of a tile), kRegisters (of its threads)
//   kKeys                              of a strip at once
//   void Start(params, row)            row[2]: this lane's of [T,H]
//   void Take<Masked>(k, v, end)       kKeys rows (addresses), of which the query sees those before `end`; with Masked
//                                      what a row holds that it does not see does not matter
//   void Finish(row, there)            which of the lane's rows are the query's, to be written
template <typename Query, typename Params, typename Shared>
__device__ void TakeTurns(const Params& params, Shared& shared, int query) {
  const int lane = threadIdx.x % 32;
  // Kept, for the compiler would find them anew each time.
  uint32_t turns = SharedAddress(shared.turns[query]), told = SharedAddress(shared.told[query]),
           keys = SharedAddress(shared.k), values = SharedAddress(shared.v), full = SharedAddress(shared.full),
           empty = SharedAddress(shared.empty);
  asm volatile("" : "+r"(turns), "+r"(told), "+r"(keys), "+r"(values), "+r"(full), "+r"(empty));
  Ring<Shared::kTurns> ring;
  Ring<2> tile;
  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x, tile.Next()) {
    const SelectedItem item = FindItem(params, index);
    const bool there = query < item.queries.count;
    const int position = item.queries.position + query;
    const int64_t first_row = static_cast<int64_t>(item.queries.row + (there ? query : 0)) * params.heads +
                              item.group * params.group_heads() + item.first_head;  // of [T,H]
    int64_t row[2];                                                                 // past the heads the last one again
#pragma unroll
    for (int i = 0; i < 2; ++i) row[i] = first_row + min(lane / 4 + i * 8, item.heads - 1);
    Query mine;
    mine.Start(params, row);
    while (true) {
      WaitBarrier(told + ring.at * sizeof(uint64_t), ring.parity);
      const uint2 words = LoadShared2(turns + ring.at * sizeof(Turn));
      const Turn turn = {static_cast<int>(words.x), words.y};
      ring.Next();
      if (turn.stage_parity_keys == Turn::kEnd) break;
      const int stage = turn.stage(), end = min(turn.keys(), position + 1 - turn.first_key);
      const uint32_t k = keys + stage * sizeof(shared.k[0]), v = values + stage * sizeof(shared.v[0]);
      WaitBarrier(full + stage * sizeof(uint64_t), turn.parity());
#pragma unroll 1
      for (int first = 0; first < end; first += Query::kKeys) {
        const uint32_t at = first * kChunkRowBytes;
        if (end - first >= Query::kKeys) {
          mine.template Take<false>(params, k + at, v + at, Query::kKeys);
        } else {
          mine.template Take<true>(params, k + at, v + at, end - first);
        }
      }
      __syncwarp();
      if (lane == 0) Arrive(empty + stage * sizeof(uint64_t));
    }
    __syncwarp();  // all lanes have read the last turn
    if (lane == 0) Arrive(&shared.tile_done[tile.at]);
    const bool valid[2] = {there && lane / 4 < item.heads, there && lane / 4 + 8 < item.heads};
    mine.Finish(params, row, valid);
  }
}

// ---- The kernel ----------------------------------------------------------------------------------------------------

template <typename Query>
constexpr int kSelectedThreads = 32 * Query::kQueries + kWarpgroup;

template <typename Query, typename Params>
__global__ void __launch_bounds__(kSelectedThreads<Query>, 1)
    SelectedKernel(const __grid_constant__ Params params, const __grid_constant__ StripMaps maps) {
  extern __shared__ unsigned char raw[];
  constexpr int kBringing = 56, kQueries = Query::kQueries;
  static_assert(kQueries % 4 == 0 && Query::kRegisters * kQueries * 32 + kBringing * kWarpgroup <= 65536);
  auto& shared = *reinterpret_cast<SelectedShared<Query::kKeyWidth, Query::kValueWidth, kQueries>*>(
      raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  if (threadIdx.x == 0) shared.InitBarriers();
  __syncthreads();
  const int warp = threadIdx.x / 32;
  if (warp < kQueries) {
    TakeRegisters<Query::kRegisters>();
    TakeTurns<Query>(params, shared, warp);
  } else {
    GiveRegisters<kBringing>();
    if (warp == kQueries) MergeLists(params, shared);
    if (warp == kQueries + 1) BringStrips<Query::kKeyWidth>(params, &maps.k, params.k, shared.k, shared);
    if (warp == kQueries + 2) BringStrips<Query::kValueWidth>(params, &maps.v, params.v, shared.v, shared);
  }
}

template <typename Query, typename Params>
void LaunchSelected(cudaStream_t stream, const char* operation, Params params) {
  params.queries = Recut(params.queries, Query::kQueries);
  const int strip_rows = std::min(params.sight.block, kStripKeys);
  const auto map = [&](const void* x, int width) {
    return RowsMap(operation, x, params.buffer_rows, params.groups, width, strip_rows, 1);
  };
  const StripMaps maps = {.k = map(params.k, Query::kKeyWidth), .v = map(params.v, Query::kValueWidth)};
  constexpr int kBytes = sizeof(SelectedShared<Query::kKeyWidth, Query::kValueWidth, Query::kQueries>) + 1024;
  auto* const kernel = SelectedKernel<Query, Params>;
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), operation);
  const int64_t items =
      static_cast<int64_t>(params.queries.tiles()) * params.groups * CeilDiv(params.group_heads(), kRowHeads);
  const int blocks = ResidentBlocks(operation, items, params.left_processors);
  kernel<<<blocks, kSelectedThreads<Query>, kBytes, stream>>>(params, maps);
}

inline bool SelectedServed(const SelectedParams& params) {
  return params.dtype == DType::kBf16 && params.scale >= 0 && AlignedForCopies(params.k) && AlignedForCopies(params.v);
}

}  // namespace longspan
