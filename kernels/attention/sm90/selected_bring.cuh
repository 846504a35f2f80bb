// How queries, keys and what is known of them come to the workers of the selected branch's d_k, d_v pass on Hopper
// (selected_backward_keys.cu), by two warps a worker: one takes items of work by ticket and brings q, one brings
// the keys and values of an item, d_o and what is known of the queries' rows.
#pragma once

#include "kernels/attention/sm90/key_weights.cuh"
#include "kernels/attention/sm90/range_backward.cuh"
#include "kernels/attention/sm90/selected_items.cuh"

namespace longspan {

using BackwardSelected = BackwardParams<SelectedSight>;

constexpr int kWorkers = 2;
constexpr int kListThreads = (kWorkers + 1) * kWarpgroup;
constexpr int kWorkerKeys = 64;
constexpr int kWorkerChunkBytes = kWorkerKeys * kChunkRowBytes;
constexpr int kWorkerRows = kStepRows;
constexpr int kPartRows = 8;
constexpr int kWorkerWarps = kWarpgroup / 32;
constexpr int kItemStages = 4;

// Ring (kernels/base/ptx_sm90.cuh) of a power of two buffers, in one register.
template <int N>
struct PowerRing {
  static_assert((N & (N - 1)) == 0);
  uint32_t turn = 0;
  __device__ __forceinline__ uint32_t at() const { return turn % N; }
  __device__ __forceinline__ uint32_t parity() const { return turn / N % 2; }
  __device__ __forceinline__ void Next() { ++turn; }
};

template <int W>
constexpr int kPartBytes = kPartRows* W* static_cast<int>(sizeof(Bf16));

// How a group's heads fill a step: a query has `parts` of kPartRows rows, of which `heads` are, or several queries
// share a part.
struct StepCut {
  int parts, heads;
  int sharers;  // queries of a part
  int queries;  // of a step

  __host__ __device__ int rows_of_query() const { return sharers == 1 ? parts * kPartRows : heads; }
  __device__ int FirstRow(int query) const { return query / sharers * parts * kPartRows + query % sharers * heads; }

  // Bytes of a query's rows in shared memory, and where those of a step's query begin.
  template <int W>
  __device__ int Bytes() const {
    return rows_of_query() * W * static_cast<int>(sizeof(Bf16));
  }
  template <int W>
  __device__ int At(int query) const {
    return query / sharers * parts * kPartBytes<W> + query % sharers * heads * kChunkRowBytes;
  }
};

inline StepCut CutStep(int group_heads) {
  StepCut cut;
  cut.heads = std::min(group_heads, kPartRows);
  while (group_heads % cut.heads != 0) --cut.heads;
  cut.parts = group_heads / cut.heads;
  cut.sharers = group_heads == 2 || group_heads == 4 ? kPartRows / group_heads : 1;
  cut.queries = kWorkerRows / kPartRows / cut.parts * cut.sharers;
  return cut;
}

struct ListWork {
  ListItems items;
  StepCut cut;
  const RowStatistics* statistics;  // [T,G] and one more, of none, [rows_of_query]
};

struct ListMaps {
  CUtensorMap q, d_o;  // [T,G] of a query's heads
  CUtensorMap k, v;    // boxes of kWorkerKeys rows
};

template <int KW, int VW>
struct ListWorker {
  static constexpr int kQueryStages = KW == 128 ? 3 : 4;
  static constexpr int kGradientStages = VW == 128 ? 2 : 4;  // and of notes
  Bf16 k[kWorkerKeys * KW];
  Bf16 v[kWorkerKeys * VW];
  Bf16 q[kQueryStages][kWorkerRows * KW];
  Bf16 d_o[kGradientStages][kWorkerRows * VW];
};

struct alignas(16) ListNotes {
  RowStatistics statistics[kWorkerRows];
  uint8_t seen[kWorkerRows];  // of the keys, the first, unless all rows see all
  int least;                  // of the keys, that all of the step's queries see
};

template <int KW, int VW>
struct ListHandover {
  static constexpr int kQueryStages = ListWorker<KW, VW>::kQueryStages;
  static constexpr int kGradientStages = ListWorker<KW, VW>::kGradientStages;
  ListItem item[kItemStages];
  ListNotes notes[kGradientStages];
  int first_key_row[kItemStages];  // of the buffer, when all keys follow there; else below 0
  uint64_t item_full[kItemStages], item_empty[kItemStages];
  uint64_t keys_full, keys_empty;
  uint64_t q_full[kQueryStages], q_empty[kQueryStages];
  uint64_t d_o_full[kGradientStages], gradient_empty[kGradientStages];
};

// Where an item's keys are.
struct ListKeys {
  int group, first_key, keys;

  __device__ ListKeys(const BackwardSelected& params, const ListItems& items, int target) {
    const int list = target / items.tiles, tile = target % items.tiles, block = list % items.lists.blocks;
    group = list / items.lists.blocks;
    first_key = block * params.sight.block + tile * kWorkerKeys;
    keys = min(min(kWorkerKeys, params.sight.block - tile * kWorkerKeys), params.key_rows - first_key);
  }
};

// ---- The warps that bring ------------------------------------------------------------------------------------------

// The row of the lane's query in the step at `entry` of an item, -1: none.
__device__ inline int RowOfLane(const ListWork& work, const ListItem& item, int entry) {
  const int lane = threadIdx.x % 32;
  return lane < work.cut.queries && entry + lane < item.count ? __ldg(work.items.lists.rows + item.first + entry + lane)
                                                              : -1;
}

// The heads of a group of the lane's query.
template <int W>
__device__ void BringQuery(const ListWork& work, const CUtensorMap* map, Bf16* to, int query, uint64_t* full) {
  const uint32_t at = SharedAddress(to) + work.cut.At<W>(threadIdx.x % 32);
  const int boxes = work.cut.sharers == 1 ? 1 : W / kChunk;
  for (int i = 0; i < boxes; ++i) {
    CopyBox(at + i * kPartRows * kChunkRowBytes, map, 0, 0, i, 0, query, full);
  }
}

// Takes items, and brings their q.
template <int KW, int VW>
__device__ void BringQueries(const BackwardSelected& params, const ListWork& work, const ListMaps& maps,
                             ListWorker<KW, VW>& worker, ListHandover<KW, VW>& handover) {
  const int lane = threadIdx.x % 32, queries = work.cut.queries, tiles = work.items.tiles;
  const int tickets = __ldg(work.items.count) * tiles;
  const auto take = [&] { return lane == 0 ? atomicAdd(work.items.ticket, 1) : 0; };
  PowerRing<kItemStages> items;
  Ring<ListWorker<KW, VW>::kQueryStages> stages;
  // The ticket of the next item is drawn while the last step of this one waits for its place, not before: items of a
  // list begin in their order, and wait for each other no longer than they must.
  int next_ticket = take();
  while (true) {
    const int ticket = __shfl_sync(~0u, next_ticket, 0);
    const bool last = ticket >= tickets;
    ListItem item = {0, 0, 0, 0};
    if (!last) {
      item = work.items.items[ticket / tiles];
      item.target = item.target * tiles + ticket % tiles;
    }
    const ListKeys place(params, work.items, item.target);
    if (!last && place.keys <= 0) {
      next_ticket = take();
      continue;
    }
    WaitBarrier(&handover.item_empty[items.at()], items.parity() ^ 1);
    if (lane == 0) {
      handover.item[items.at()] = item;
      Arrive(&handover.item_full[items.at()]);
    }
    items.Next();
    if (last) return;

    int row = RowOfLane(work, item, 0);
    for (int entry = 0; entry < item.count; entry += queries, stages.Next()) {
      const int next_row = RowOfLane(work, item, entry + queries);
      if (entry + queries >= item.count) next_ticket = take();
      uint64_t* const full = &handover.q_full[stages.at];
      WaitBarrier(&handover.q_empty[stages.at], stages.parity ^ 1);
      if (lane == 0) ArriveAndExpect(full, min(queries, item.count - entry) * work.cut.Bytes<KW>());
      __syncwarp();
      if (row >= 0) {
        BringQuery<KW>(work, &maps.q, worker.q[stages.at], row * params.groups + place.group, full);
      }
      row = next_row;
    }
  }
}

// Brings an item's keys and values, and d_o and what is known of its queries.
template <int KW, int VW>
__device__ void BringKeys(const BackwardSelected& params, const ListWork& work, const ListMaps& maps,
                          ListWorker<KW, VW>& worker, ListHandover<KW, VW>& handover) {
  const int lane = threadIdx.x % 32, queries = work.cut.queries;
  PowerRing<kItemStages> items;
  PowerRing<ListWorker<KW, VW>::kGradientStages> stages;
  while (true) {
    WaitBarrier(&handover.item_full[items.at()], items.parity());
    const ListItem item = handover.item[items.at()];
    if (item.count == 0) return;
    const ListKeys place(params, work.items, item.target);
    const auto find = [&](int key, int count) {
      return key < place.first_key + place.keys ? RowsInPage(params, key, count) : -1;
    };
    const int whole = find(place.first_key, kWorkerKeys);
    int row = RowOfLane(work, item, 0);
    WaitBarrier(&handover.keys_empty, items.turn % 2 ^ 1);
    const auto bring = [&]<int W>(Bf16* to, const CUtensorMap* map, const void* x) {
      const uint32_t at = SharedAddress(to);
      if (whole < 0) {
        CopyRows<W, kWorkerChunkBytes>(at, static_cast<const Bf16*>(x), params, place.group, place.first_key,
                                       kWorkerKeys, find);
      } else if (lane == 0) {
        const uint64_t policy = PassCachePolicy();
        for (int i = 0; i < W / kChunk; ++i) {
          CopyBox(at + i * kWorkerChunkBytes, map, i * kChunk, place.group, whole, &handover.keys_full, policy);
        }
      }
    };
    bring.template operator()<KW>(worker.k, &maps.k, params.k);
    bring.template operator()<VW>(worker.v, &maps.v, params.v);
    __syncwarp();
    if (lane == 0) {
      handover.first_key_row[items.at()] = whole;
      ArriveAndExpect(&handover.keys_full, whole < 0 ? 0 : kWorkerKeys * (KW + VW) * sizeof(Bf16));
      Arrive(&handover.item_empty[items.at()]);
    }
    items.Next();

    for (int entry = 0; entry < item.count; entry += queries, stages.Next()) {
      const int next_row = RowOfLane(work, item, entry + queries);
      const int seen = row < 0 ? 0 : max(0, min(kWorkerKeys, PositionOf(params.queries, row) + 1 - place.first_key));
      const int least = __reduce_min_sync(~0u, row < 0 ? kWorkerKeys : seen);
      ListNotes& notes = handover.notes[stages.at()];
      uint64_t* const full = &handover.d_o_full[stages.at()];
      const int rows = work.cut.rows_of_query();
      const int statistics_bytes = rows * static_cast<int>(sizeof(RowStatistics));
      WaitBarrier(&handover.gradient_empty[stages.at()], stages.parity() ^ 1);
      if (least < kWorkerKeys && lane < queries) {
        for (int i = 0; i < rows; ++i) notes.seen[work.cut.FirstRow(lane) + i] = seen;
      }
      __syncwarp();
      if (lane == 0) {
        notes.least = least;
        ArriveAndExpect(full, min(queries, item.count - entry) * work.cut.Bytes<VW>() + queries * statistics_bytes);
      }
      __syncwarp();
      const int query = row < 0 ? params.tokens * params.groups : row * params.groups + place.group;
      if (row >= 0) BringQuery<VW>(work, &maps.d_o, worker.d_o[stages.at()], query, full);
      if (lane < queries) {
        CopyBytes(SharedAddress(notes.statistics + work.cut.FirstRow(lane)),
                  work.statistics + static_cast<int64_t>(query) * rows, statistics_bytes, full);
      }
      row = next_row;
    }
  }
}

}  // namespace longspan
