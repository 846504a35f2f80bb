// How queries, keys and what is known of them come to the workers of the selected branch's d_k, d_v pass on Hopper
// (selected_backward_keys.cu), by two warps a worker: one takes items of work by ticket and brings q and d_o, one
// brings the keys and values of an item and what is known of the queries' rows.
#pragma once

#include "kernels/attention/sm90/range_backward.cuh"
#include "kernels/attention/sm90/selected_items.cuh"

namespace longspan {

using BackwardSelected = BackwardParams<SelectedSight>;

constexpr int kWorkers = 2;
constexpr int kSelectedThreads = (kWorkers + 1) * kWarpgroup;
constexpr int kWorkerKeys = 64;
constexpr int kWorkerChunkBytes = kWorkerKeys * kChunkRowBytes;
constexpr int kWorkerRows = 64;  // of a step
constexpr int kPartRows = 8;     // rows, all of one query
constexpr int kWorkerWarps = kWarpgroup / 32;
constexpr int kItemStages = 4;

// Ring (kernels/base/ptx_sm90.cuh) of a power of two buffers, in one register.
template <int N>
struct Turns {
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

  // Bytes of a query's heads in shared memory, and where those of query x begin.
  template <int W>
  __device__ int Bytes() const {
    return sharers == 1 ? parts * kPartBytes<W> : heads * W * static_cast<int>(sizeof(Bf16));
  }
  template <int W>
  __device__ int At(int x) const {
    return x / sharers * parts * kPartBytes<W> + x % sharers * heads * kChunkRowBytes;
  }
};

inline StepCut CutStep(int group_heads) {
  constexpr int kMaxQueries = 32;  // a lane each
  StepCut cut;
  cut.heads = std::min(group_heads, kPartRows);
  while (group_heads % cut.heads != 0) --cut.heads;
  cut.parts = group_heads / cut.heads;
  cut.sharers = cut.parts == 1 ? std::min(kPartRows / cut.heads, kMaxQueries * kPartRows / kWorkerRows) : 1;
  cut.queries = kWorkerRows / kPartRows / cut.parts * cut.sharers;
  return cut;
}

struct SelectedWork {
  SelectedItems items;
  StepCut cut;
};

struct SelectedMaps {
  CUtensorMap q, d_o;  // [T,G] of a query's heads
  CUtensorMap k, v;    // boxes of kWorkerKeys rows
};

template <int KW, int VW>
struct SelectedWorker {
  static constexpr int kQueryStages = KW == 128 ? 3 : 4;
  static constexpr int kGradientStages = VW == 128 ? 2 : 4;  // and of notes
  Bf16 k[kWorkerKeys * KW];
  Bf16 v[kWorkerKeys * VW];
  Bf16 q[kQueryStages][kWorkerRows * KW];
  Bf16 d_o[kGradientStages][kWorkerRows * VW];
};

struct Notes {
  RowStatistics statistics[kWorkerRows];
  uint8_t seen[kWorkerRows];  // of the keys, the first
};

template <int KW, int VW>
struct SelectedHandover {
  static constexpr int kQueryStages = SelectedWorker<KW, VW>::kQueryStages;
  static constexpr int kGradientStages = SelectedWorker<KW, VW>::kGradientStages;
  SelectedItem item[kItemStages];
  Notes notes[kGradientStages];
  int least[kGradientStages];  // of the keys, that all of the step's queries see
  int first_key_row;           // of the buffer, when all keys follow there; else below 0
  uint64_t item_full[kItemStages], item_empty[kItemStages];
  uint64_t keys_full, keys_empty;
  uint64_t note_full[kGradientStages];
  uint64_t q_full[kQueryStages], q_empty[kQueryStages];
  uint64_t d_o_full[kGradientStages], gradient_empty[kGradientStages];
};

// Where an item's keys are.
struct KeysPlace {
  int group, first_key, keys;

  __device__ KeysPlace(const BackwardSelected& params, const SelectedItems& items, int target) {
    const int list = target / items.tiles, tile = target % items.tiles, block = list % items.lists.blocks;
    group = list / items.lists.blocks;
    first_key = block * params.sight.block + tile * kWorkerKeys;
    keys = min(min(kWorkerKeys, params.sight.block - tile * kWorkerKeys), params.key_rows - first_key);
  }
};

// ---- The warps that bring ------------------------------------------------------------------------------------------

// Takes items, and brings their queries.
template <int KW, int VW>
__device__ void BringQueries(const BackwardSelected& params, const SelectedWork& work, const SelectedMaps& maps,
                             SelectedWorker<KW, VW>& worker, SelectedHandover<KW, VW>& handover) {
  const int lane = threadIdx.x % 32, queries = work.cut.queries, tiles = work.items.tiles;
  const int tickets = __ldg(work.items.count) * tiles;
  const auto take = [&] { return lane == 0 ? atomicAdd(work.items.ticket, 1) : 0; };
  Turns<kItemStages> items;
  Ring<SelectedWorker<KW, VW>::kQueryStages> q_stages;
  Turns<SelectedWorker<KW, VW>::kGradientStages> d_o_stages;
  int next_ticket = take();
  while (true) {
    const int ticket = __shfl_sync(~0u, next_ticket, 0);
    const bool last = ticket >= tickets;
    SelectedItem item = {0, 0, 0, 0};
    if (!last) {
      next_ticket = take();
      item = work.items.items[ticket / tiles];
      item.target = item.target * tiles + ticket % tiles;
    }
    const KeysPlace place(params, work.items, item.target);
    if (!last && place.keys <= 0) continue;
    WaitBarrier(&handover.item_empty[items.at()], items.parity() ^ 1);
    if (lane == 0) {
      handover.item[items.at()] = item;
      Arrive(&handover.item_full[items.at()]);
    }
    items.Next();
    if (last) return;

    const int32_t* const rows = work.items.lists.rows + item.first;
    const auto row_of = [&](int entry) {
      return lane < queries && entry + lane < item.count ? __ldg(rows + entry + lane) : -1;
    };
    const auto bring = [&]<int W>(Bf16* to, const CUtensorMap* map, uint64_t* full, int live, int row) {
      if (lane == 0) ArriveAndExpect(full, live * work.cut.Bytes<W>());
      __syncwarp();
      if (row < 0) return;
      const uint32_t at = SharedAddress(to) + work.cut.At<W>(lane);
      for (int i = 0; i < (work.cut.sharers == 1 ? 1 : W / kChunk); ++i) {
        CopyBox(at + i * kPartRows * kChunkRowBytes, map, 0, 0, i, 0, row * params.groups + place.group, full);
      }
    };
    int row = row_of(0);
    for (int entry = 0; entry < item.count; entry += queries) {
      const int next_row = row_of(entry + queries), live = min(queries, item.count - entry);
      WaitBarrier(&handover.q_empty[q_stages.at], q_stages.parity ^ 1);
      bring.template operator()<KW>(worker.q[q_stages.at], &maps.q, &handover.q_full[q_stages.at], live, row);
      WaitBarrier(&handover.gradient_empty[d_o_stages.at()], d_o_stages.parity() ^ 1);
      bring.template operator()<VW>(worker.d_o[d_o_stages.at()], &maps.d_o, &handover.d_o_full[d_o_stages.at()], live,
                                    row);
      q_stages.Next();
      d_o_stages.Next();
      row = next_row;
    }
  }
}

// The next item, which `arrivals` of kItemReaders say to have read.
template <int KW, int VW>
__device__ SelectedItem NextItem(SelectedHandover<KW, VW>& handover, Turns<kItemStages>& items) {
  WaitBarrier(&handover.item_full[items.at()], items.parity());
  const SelectedItem item = handover.item[items.at()];
  __syncwarp();
  if (threadIdx.x % 32 == 0) Arrive(&handover.item_empty[items.at()]);
  items.Next();
  return item;
}

// Brings keys, values and what is known of the queries' rows.
template <int KW, int VW>
__device__ void BringKeys(const BackwardSelected& params, const SelectedWork& work, const SelectedMaps& maps,
                          SelectedWorker<KW, VW>& worker, SelectedHandover<KW, VW>& handover) {
  constexpr int kRowsOfLane = kWorkerRows / 32;
  const int lane = threadIdx.x % 32, group_heads = params.group_heads();
  const StepCut cut = work.cut;
  int who[kRowsOfLane];  // head of the group * kWorkerRows + query of the step, -1: none
#pragma unroll
  for (int i = 0; i < kRowsOfLane; ++i) {
    const int part = (i * 32 + lane) / kPartRows, in_part = lane % kPartRows;
    const int query = part / cut.parts * cut.sharers + in_part / cut.heads;
    const int head = part % cut.parts * cut.heads + in_part % cut.heads;
    who[i] = query < cut.queries && in_part < cut.heads * cut.sharers ? head * kWorkerRows + query : -1;
  }
  Turns<kItemStages> items;
  Turns<SelectedWorker<KW, VW>::kGradientStages> notes;
  while (true) {
    const SelectedItem item = NextItem(handover, items);
    if (item.count == 0) return;
    const KeysPlace place(params, work.items, item.target);
    const int32_t* const rows = work.items.lists.rows + item.first;
    int row[kRowsOfLane], next_row[kRowsOfLane];
    RowStatistics statistics[kRowsOfLane];
    const auto find = [&](int entry, int(&found)[kRowsOfLane]) {
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        const int at = entry + who[i] % kWorkerRows;
        found[i] = who[i] >= 0 && at < item.count ? __ldg(rows + at) : -1;
      }
    };
    const auto look_up = [&] {
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        statistics[i] = {};
        if (row[i] < 0) continue;
        statistics[i] = StatisticsOf(
            params, static_cast<int64_t>(row[i]) * params.heads + place.group * group_heads + who[i] / kWorkerRows);
      }
    };
    find(0, row);
    find(cut.queries, next_row);
    look_up();

    WaitBarrier(&handover.keys_empty, items.turn % 2);  // NextItem has counted this one
    const auto in_page = [&](int key, int count) {
      return key < place.first_key + place.keys ? RowsInPage(params, key, count) : -1;
    };
    const int whole = in_page(place.first_key, kWorkerKeys);
    if (whole >= 0) {
      if (lane == 0) {
        handover.first_key_row = whole;
        ArriveAndExpect(&handover.keys_full, kWorkerKeys * (KW + VW) * sizeof(Bf16));
        for (int i = 0; i < KW / kChunk; ++i) {
          CopyBox(SharedAddress(worker.k) + i * kWorkerChunkBytes, &maps.k, i * kChunk, place.group, whole,
                  &handover.keys_full);
        }
        for (int i = 0; i < VW / kChunk; ++i) {
          CopyBox(SharedAddress(worker.v) + i * kWorkerChunkBytes, &maps.v, i * kChunk, place.group, whole,
                  &handover.keys_full);
        }
      }
    } else {
      CopyRows<KW, kWorkerChunkBytes>(SharedAddress(worker.k), static_cast<const Bf16*>(params.k), params, place.group,
                                      place.first_key, kWorkerKeys, in_page);
      CopyRows<VW, kWorkerChunkBytes>(SharedAddress(worker.v), static_cast<const Bf16*>(params.v), params, place.group,
                                      place.first_key, kWorkerKeys, in_page);
      __syncwarp();
      if (lane == 0) {
        handover.first_key_row = -1;
        Arrive(&handover.keys_full);
      }
    }
    __syncwarp();

    for (int entry = 0; entry < item.count; entry += cut.queries, notes.Next()) {
      int seen[kRowsOfLane], least = kWorkerKeys;
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        seen[i] = 0;
        if (row[i] < 0) continue;
        seen[i] = max(0, min(kWorkerKeys, PositionOf(params.queries, row[i]) + 1 - place.first_key));
        least = min(least, seen[i]);
      }
      least = __reduce_min_sync(~0u, least);
      WaitBarrier(&handover.gradient_empty[notes.at()], notes.parity() ^ 1);
      Notes& to = handover.notes[notes.at()];
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        to.statistics[i * 32 + lane] = statistics[i];
        to.seen[i * 32 + lane] = seen[i];
        row[i] = next_row[i];
      }
      if (lane == 0) handover.least[notes.at()] = least;
      Arrive(&handover.note_full[notes.at()]);
      look_up();
      find(entry + 2 * cut.queries, next_row);
    }
  }
}

}  // namespace longspan
