// Forward of the selected branch in bf16 on Hopper: each query sees the blocks of key rows it chose. Overwrites o and
// lse.
//
// A tile is kQueries neighbouring queries of a segment and up to 16 heads of one group. A block stays and takes tiles
// in turn. Twelve of its warps have a query each: its heads are the 16 rows of a warp's product. One warp merges the
// queries' lists, two bring every block that any query chose, once, in strips of up to 64 rows, and each query's warp is
// told of the strips it wants. So loads are shared by neighbours that agree, and no product is made in vain. Bound by
// the loads where neighbours choose differently (README.md).
//
// A query meets its own blocks in the order of its list, whoever its neighbours are: its bits depend on nothing else.
#include <algorithm>

#include "kernels/attention/gpu/warp_rows.cuh"
#include "kernels/attention/sm90/kernels.cuh"
#include "kernels/attention/sm90/key_rows.cuh"
#include "kernels/attention/sm90/row_softmax.cuh"
#include "kernels/attention/sm90/tensor_map.cuh"

namespace longspan {
namespace {

using SelectedParams = BranchParams<SelectedSight>;

constexpr int kQueries = 12;
constexpr int kThreads = 32 * kQueries + kWarpgroup;
constexpr int kHeads = 16;  // of a tile: the rows of a warp's product
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

template <int KW, int VW>
struct SelectedShared {
  static constexpr int kStages = std::min(12, 224 * 1024 / (kStripKeys * (KW + VW) * 2));
  static constexpr int kTurns = kStages + 2;
  Bf16 k[kStages][kStripKeys * KW];
  Bf16 v[kStages][kStripKeys * VW];
  Turn turns[kQueries][kTurns];
  Order orders[kStages];
  uint64_t told[kQueries][kTurns];
  uint64_t ordered[kStages], full[kStages], empty[kStages];
  uint64_t tile_done[2];
};

// A tile of queries and heads.
struct SelectedItem {
  QueryTileGpu queries;
  int group, first_head, heads;
};

__device__ inline int HeadParts(const SelectedParams& params) { return (params.group_heads() + kHeads - 1) / kHeads; }

__device__ inline int ItemCount(const SelectedParams& params) {
  return params.queries.first_tile[params.queries.count] * params.groups * HeadParts(params);
}

// Number `index`: group by group, whose keys and values then stay in the cache.
__device__ inline SelectedItem FindItem(const SelectedParams& params, int index) {
  const int parts = HeadParts(params), tiles = params.queries.first_tile[params.queries.count];
  SelectedItem item;
  item.group = index / (tiles * parts);
  item.queries = FindQueries(params.queries, index / parts % tiles);
  item.first_head = index % parts * kHeads;
  item.heads = min(kHeads, params.group_heads() - item.first_head);
  return item;
}

// ---- The warps that bring blocks ------------------------------------------------------------------------------------

// Merges the lists of a tile's queries: orders the strips, and tells each query's warp its turns (lane q tells query
// q's). Never more than two tiles ahead of a warp, so that the turns which it has not taken are strips that hold a
// stage and the ends of two tiles: no more than kTurns.
template <int KW, int VW>
__device__ void MergeLists(const SelectedParams& params, SelectedShared<KW, VW>& shared) {
  using Shared = SelectedShared<KW, VW>;
  constexpr int kNone = INT32_MAX;
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
    const int whole = FindRows(params, {order.first, order.first + rows}, order.first, rows);
    if (whole < 0) {
      CopyRows<W, kStripChunkBytes>(stage, static_cast<const Bf16*>(x), params, order.group, {order.first, order.end},
                                    order.first, rows);
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

// One query's rows: 16 heads.
template <int KW, int VW>
struct WarpQuery {
  static constexpr int kKeys = 32;  // at once, as registers allow
  static constexpr int kAhead = 3;  // matrices of keys or values on their way to registers
  uint32_t q[KW / 16][4];
  float o[VW / 8][4];
  RowSoftmax softmax;

  // kKeys rows, of which the query sees those before `end`. What a row that it does not see holds does not matter.
  template <bool Masked>
  __device__ __forceinline__ void Take(uint32_t k, uint32_t v, float scale_log2, int end) {
    constexpr int kSteps = kKeys / 16, kKeyLoads = KW / 16 * kSteps, kValueLoads = VW / 16 * kSteps;
    const int lane = threadIdx.x % 32, matrix = lane / 8, row = lane % 8, column = lane % 4 * 2;
    // 16 channels on is 32 bytes on, which the swizzle turns into an exclusive or.
    const uint32_t k_lane = k + Swizzled(matrix / 2 * 8 + row, matrix % 2);
    const uint32_t v_lane = v + Swizzled(matrix % 2 * 8 + row, matrix / 2);
    uint32_t b[kAhead + 1][4];
    const auto load_keys = [&](int t) {
      const int step = t % kSteps, i = t / kSteps;
      LoadMatrices<false>(b[t % (kAhead + 1)],
                          (k_lane ^ i % 4 * 32) + i / 4 * kStripChunkBytes + step * 16 * kChunkRowBytes);
    };
    const auto load_values = [&](int t) {
      const int i = t % (VW / 16), step = t / (VW / 16);
      LoadMatrices<true>(b[t % (kAhead + 1)],
                         (v_lane ^ i % 4 * 32) + i / 4 * kStripChunkBytes + step * 16 * kChunkRowBytes);
    };
    float s[kKeys / 8][4];
    SetZero(s);
#pragma unroll
    for (int t = 0; t < kAhead; ++t) load_keys(t);
#pragma unroll
    for (int t = 0; t < kKeyLoads; ++t) {
      if (t + kAhead < kKeyLoads) load_keys(t + kAhead);
      const uint32_t(&keys)[4] = b[t % (kAhead + 1)];
      Mma(s[t % kSteps * 2], q[t / kSteps], keys[0], keys[1]);
      Mma(s[t % kSteps * 2 + 1], q[t / kSteps], keys[2], keys[3]);
    }
#pragma unroll
    for (int t = 0; t < kAhead; ++t) load_values(t);

    float(&scores)[kKeys / 2] = reinterpret_cast<float(&)[kKeys / 2]>(s);
    if (Masked) MaskFrom(scores, end - column, end - column);
    float shrink[2];
    softmax.Take(scores, scale_log2, shrink);
    if (__any_sync(~0u, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
      for (int i = 0; i < VW / 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) o[i][j] *= shrink[j / 2];
      }
    }
    uint32_t p[kSteps][4];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) p[i][j] = PackBf16(scores[i * 8 + j * 2], scores[i * 8 + j * 2 + 1]);
    }
#pragma unroll
    for (int t = 0; t < kValueLoads; ++t) {
      if (t + kAhead < kValueLoads) load_values(t + kAhead);
      const int i = t % (VW / 16), step = t / (VW / 16);
      uint32_t(&values)[4] = b[t % (kAhead + 1)];
      if (Masked) {  // a weight of 0 times NaN would be NaN
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int key = step * 16 + j % 2 * 8 + column;
          values[j] &= (key < end ? 0xFFFFu : 0) | (key + 1 < end ? 0xFFFF0000u : 0);
        }
      }
      Mma(o[i * 2], p[step], values[0], values[1]);
      Mma(o[i * 2 + 1], p[step], values[2], values[3]);
    }
  }
};

template <int KW, int VW>
__device__ void Attend(const SelectedParams& params, SelectedShared<KW, VW>& shared, int query) {
  using Shared = SelectedShared<KW, VW>;
  const int lane = threadIdx.x % 32;
  const float scale_log2 = ScaleLog2(params.scale);
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
    int64_t row[2];  // this lane's; past the heads the last one again, not to be written
#pragma unroll
    for (int i = 0; i < 2; ++i) row[i] = first_row + min(lane / 4 + i * 8, item.heads - 1);
    WarpQuery<KW, VW> mine;
    mine.softmax = {};
    SetZero(mine.o);
    LoadRows(static_cast<const Bf16*>(params.q), row, KW, mine.q);
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
      for (int first = 0; first < end; first += mine.kKeys) {
        const uint32_t at = first * kChunkRowBytes;
        if (end - first >= mine.kKeys) {
          mine.template Take<false>(k + at, v + at, scale_log2, mine.kKeys);
        } else {
          mine.template Take<true>(k + at, v + at, scale_log2, end - first);
        }
      }
      __syncwarp();
      if (lane == 0) Arrive(empty + stage * sizeof(uint64_t));
    }
    if (lane == 0) Arrive(&shared.tile_done[tile.at]);
    mine.softmax.Finish();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!there || lane / 4 + i * 8 >= item.heads) continue;
      const float factor = mine.softmax.Factor(i);
      Bf16* const out = static_cast<Bf16*>(params.o) + row[i] * VW + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < VW / 8; ++j) {
        *reinterpret_cast<uint32_t*>(out + j * 8) = PackBf16(mine.o[j][i * 2] * factor, mine.o[j][i * 2 + 1] * factor);
      }
      if (lane % 4 == 0) params.lse[row[i]] = mine.softmax.LogSumExp(i);
    }
  }
}

template <int KW, int VW>
__global__ void __launch_bounds__(kThreads, 1)
    SelectedForwardKernel(const __grid_constant__ SelectedParams params, const __grid_constant__ StripMaps maps) {
  extern __shared__ unsigned char raw[];
  auto& shared = *reinterpret_cast<SelectedShared<KW, VW>*>(raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  if (threadIdx.x == 0) {
    for (int i = 0; i < SelectedShared<KW, VW>::kStages; ++i) {
      InitBarrier(&shared.ordered[i], 1);
      InitBarrier(&shared.full[i], 2);
      InitBarrier(&shared.empty[i], kQueries);
    }
    for (auto& barriers : shared.told) {
      for (uint64_t& barrier : barriers) InitBarrier(&barrier, 1);
    }
    for (uint64_t& barrier : shared.tile_done) InitBarrier(&barrier, kQueries);
    PublishBarriers();
  }
  __syncthreads();
  const int warp = threadIdx.x / 32;
  if (warp < kQueries) {
    TakeRegisters<152>();
    Attend(params, shared, warp);
  } else {
    GiveRegisters<56>();
    if (warp == kQueries) MergeLists(params, shared);
    if (warp == kQueries + 1) BringStrips<KW>(params, &maps.k, params.k, shared.k, shared);
    if (warp == kQueries + 2) BringStrips<VW>(params, &maps.v, params.v, shared.v, shared);
  }
}

template <int KW, int VW>
void Launch(cudaStream_t stream, const char* operation, const SelectedParams& params) {
  const int strip_rows = std::min(params.sight.block, kStripKeys);
  const StripMaps maps = {
      .k = RowsMap(operation, params.k, params.buffer_rows, params.groups, KW, strip_rows, 1),
      .v = RowsMap(operation, params.v, params.buffer_rows, params.groups, VW, strip_rows, 1),
  };
  constexpr int kBytes = sizeof(SelectedShared<KW, VW>) + 1024;
  auto* const kernel = SelectedForwardKernel<KW, VW>;
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), operation);
  int device = 0, processors = 0;
  CudaCheck(cudaGetDevice(&device), operation);
  CudaCheck(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), operation);
  const int64_t items =
      static_cast<int64_t>(params.queries.tiles()) * params.groups * CeilDiv(params.group_heads(), kHeads);
  LS_CHECK(items <= INT32_MAX - processors, "{}: q: expected fewer than 2^31 tiles, found {}", operation, items);
  kernel<<<std::min<int64_t>(items, processors), kThreads, kBytes, stream>>>(params, maps);
}

}  // namespace

bool SelectedForwardServedSm90(const SelectedParams& params) {
  const auto aligned = [](const void* x) { return reinterpret_cast<uintptr_t>(x) % 16 == 0; };
  const auto widths = [&](int k, int v) { return params.key_width == k && params.value_width == v; };
  return params.dtype == DType::kBf16 && (widths(64, 64) || widths(128, 128) || widths(192, 128)) &&
         params.scale >= 0 && aligned(params.k) && aligned(params.v);
}

void SelectedForwardSm90(cudaStream_t stream, const char* operation, const SelectedParams& params) {
  SelectedParams cut = params;
  cut.queries = Recut(params.queries, kQueries);
  if (params.key_width == 64) {
    Launch<64, 64>(stream, operation, cut);
  } else if (params.key_width == 128) {
    Launch<128, 128>(stream, operation, cut);
  } else {
    Launch<192, 128>(stream, operation, cut);
  }
}

}  // namespace longspan
