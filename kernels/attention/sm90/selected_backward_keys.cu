// d_k and d_v of the selected branch in bf16 on Hopper. Adds to both.
//
// A worker is a warpgroup that owns 64 keys of a block, whose d_k and d_v stay in its registers, and walks over the
// queries that chose the block, an item of work at a time (selected_items.cuh), 64 rows (queries x heads of the group)
// a step. Scores are computed transposed, keys as rows, so that P and dS are operands of the following products as they
// stand; four products a step,
//   S = k q   dP = v d_o   dS = P (dP - delta)   d_v += P d_o   d_k += dS q
// of which the next step's S is under way with this one's last. Two workers share a multiprocessor, and each has two
// warps of a third warpgroup that take items by ticket and bring queries; keys, values and what is known of the rows.
//
// The sums of an item are added to memory after those of the items of its keys before, in the lists' order, whichever
// workers have them: same bits on every run. A worker waits for items of lower tickets only, which others have taken
// and will end: blocks need not all be resident.
#include "kernels/attention/sm90/kernels.cuh"
#include "kernels/attention/sm90/range_backward.cuh"
#include "kernels/attention/sm90/selected_items.cuh"

namespace longspan {
namespace {

using BackwardSelected = BackwardParams<SelectedSight>;

constexpr int kWorkers = 2;
constexpr int kThreads = (kWorkers + 1) * kWarpgroup;
constexpr int kKeys = 64;
constexpr int kKeysChunkBytes = kKeys * kChunkRowBytes;
constexpr int kRows = 64;  // of a step
constexpr int kPart = 8;   // rows, all of one query
constexpr int kWarps = kWarpgroup / 32;
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
constexpr int kPartBytes = kPart* W* static_cast<int>(sizeof(Bf16));

// How a group's heads fill a step: a query has `parts` of kPart rows, of which `heads` are.
struct StepCut {
  int parts, heads, queries;
};

StepCut CutStep(int group_heads) {
  int heads = std::min(group_heads, kPart);
  while (group_heads % heads != 0) --heads;
  const int parts = group_heads / heads;
  return {parts, heads, kRows / kPart / parts};
}

struct Work {
  SelectedItems items;
  StepCut cut;
};

struct Maps {
  CUtensorMap q, d_o;  // [T,G] of a query's heads
  CUtensorMap k, v;    // boxes of kKeys rows
};

template <int KW, int VW>
struct Worker {
  static constexpr int kQueryStages = KW == 128 ? 3 : 4;
  static constexpr int kGradientStages = VW == 128 ? 2 : 4;  // and of notes
  Bf16 k[kKeys * KW];
  Bf16 v[kKeys * VW];
  Bf16 q[kQueryStages][kRows * KW];
  Bf16 d_o[kGradientStages][kRows * VW];
};

struct Notes {
  RowStatistics statistics[kRows];
  int position[kRows / kPart];
};

template <int KW, int VW>
struct Handover {
  static constexpr int kQueryStages = Worker<KW, VW>::kQueryStages;
  static constexpr int kGradientStages = Worker<KW, VW>::kGradientStages;
  SelectedItem item[kItemStages];
  Notes notes[kGradientStages];
  int least[kGradientStages];  // position of the step's queries
  int first_key_row;           // of the buffer, when all keys follow there; else below 0
  uint64_t item_full[kItemStages], item_empty[kItemStages];
  uint64_t keys_full, keys_empty;
  uint64_t note_full[kGradientStages];
  uint64_t q_full[kQueryStages], q_empty[kQueryStages];
  uint64_t d_o_full[kGradientStages], gradient_empty[kGradientStages];
};

template <int KW, int VW>
struct Shared {
  Worker<KW, VW> worker[kWorkers];
  Handover<KW, VW> handover[kWorkers];
};

// Where an item's keys are.
struct Place {
  int group, first_key, keys;

  __device__ Place(const BackwardSelected& params, const SelectedItems& items, int target) {
    const int list = target / items.tiles, tile = target % items.tiles, block = list % items.lists.blocks;
    group = list / items.lists.blocks;
    first_key = block * params.sight.block + tile * kKeys;
    keys = min(min(kKeys, params.sight.block - tile * kKeys), params.key_rows - first_key);
  }
};

// ---- The warps that bring ------------------------------------------------------------------------------------------

// Takes items, and brings their queries.
template <int KW, int VW>
__device__ void BringQueries(const BackwardSelected& params, const Work& work, const Maps& maps, Worker<KW, VW>& worker,
                             Handover<KW, VW>& handover) {
  const int lane = threadIdx.x % 32, queries = work.cut.queries, tiles = work.items.tiles;
  const int tickets = __ldg(work.items.count) * tiles;
  const auto take = [&] { return lane == 0 ? atomicAdd(work.items.ticket, 1) : 0; };
  Turns<kItemStages> items;
  Ring<Worker<KW, VW>::kQueryStages> q_stages;
  Turns<Worker<KW, VW>::kGradientStages> d_o_stages;
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
    const Place place(params, work.items, item.target);
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
      const int bytes = work.cut.parts * kPartBytes<W>;
      if (lane == 0) ArriveAndExpect(full, live * bytes);
      __syncwarp();
      if (row >= 0) CopyBoxOfFive(SharedAddress(to) + lane * bytes, map, row * params.groups + place.group, full);
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
__device__ SelectedItem NextItem(Handover<KW, VW>& handover, Turns<kItemStages>& items) {
  WaitBarrier(&handover.item_full[items.at()], items.parity());
  const SelectedItem item = handover.item[items.at()];
  __syncwarp();
  if (threadIdx.x % 32 == 0) Arrive(&handover.item_empty[items.at()]);
  items.Next();
  return item;
}

// Brings keys, values and what is known of the queries' rows.
template <int KW, int VW>
__device__ void BringKeys(const BackwardSelected& params, const Work& work, const Maps& maps, Worker<KW, VW>& worker,
                          Handover<KW, VW>& handover) {
  constexpr int kRowsOfLane = kRows / 32;
  const int lane = threadIdx.x % 32, group_heads = params.group_heads();
  const StepCut cut = work.cut;
  int who[kRowsOfLane];  // head of the group * kRows + query of the step, -1: none
#pragma unroll
  for (int i = 0; i < kRowsOfLane; ++i) {
    const int part = (i * 32 + lane) / kPart, in_part = lane % kPart;
    const int query = part / cut.parts, head = part % cut.parts * cut.heads + in_part;
    who[i] = query < cut.queries && in_part < cut.heads ? head * kRows + query : -1;
  }
  Turns<kItemStages> items;
  Turns<Worker<KW, VW>::kGradientStages> notes;
  while (true) {
    const SelectedItem item = NextItem(handover, items);
    if (item.count == 0) return;
    const Place place(params, work.items, item.target);
    const int32_t* const rows = work.items.lists.rows + item.first;
    int row[kRowsOfLane], next_row[kRowsOfLane];
    RowStatistics statistics[kRowsOfLane];
    const auto find = [&](int entry, int(&found)[kRowsOfLane]) {
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        const int at = entry + who[i] % kRows;
        found[i] = who[i] >= 0 && at < item.count ? __ldg(rows + at) : -1;
      }
    };
    const auto look_up = [&] {
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        statistics[i] = {};
        if (row[i] < 0) continue;
        statistics[i] = StatisticsOf(
            params, static_cast<int64_t>(row[i]) * params.heads + place.group * group_heads + who[i] / kRows);
      }
    };
    find(0, row);
    find(cut.queries, next_row);
    look_up();

    WaitBarrier(&handover.keys_empty, items.turn % 2);  // NextItem has counted this one
    const auto in_page = [&](int key, int count) {
      return key < place.first_key + place.keys ? RowsInPage(params, key, count) : -1;
    };
    const int whole = in_page(place.first_key, kKeys);
    if (whole >= 0) {
      if (lane == 0) {
        handover.first_key_row = whole;
        ArriveAndExpect(&handover.keys_full, kKeys * (KW + VW) * sizeof(Bf16));
        for (int i = 0; i < KW / kChunk; ++i) {
          CopyBox(SharedAddress(worker.k) + i * kKeysChunkBytes, &maps.k, i * kChunk, place.group, whole,
                  &handover.keys_full);
        }
        for (int i = 0; i < VW / kChunk; ++i) {
          CopyBox(SharedAddress(worker.v) + i * kKeysChunkBytes, &maps.v, i * kChunk, place.group, whole,
                  &handover.keys_full);
        }
      }
    } else {
      CopyRows<KW, kKeysChunkBytes>(SharedAddress(worker.k), static_cast<const Bf16*>(params.k), params, place.group,
                                    place.first_key, kKeys, in_page);
      CopyRows<VW, kKeysChunkBytes>(SharedAddress(worker.v), static_cast<const Bf16*>(params.v), params, place.group,
                                    place.first_key, kKeys, in_page);
      __syncwarp();
      if (lane == 0) {
        handover.first_key_row = -1;
        Arrive(&handover.keys_full);
      }
    }
    __syncwarp();

    for (int entry = 0; entry < item.count; entry += cut.queries, notes.Next()) {
      int position[kRowsOfLane], least = INT_MAX;
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        position[i] = -1;  // sees nothing
        if (lane % kPart != 0 || row[i] < 0) continue;
        position[i] = PositionOf(params.queries, row[i]);
        least = min(least, position[i]);
      }
      least = __reduce_min_sync(~0u, least);
      WaitBarrier(&handover.gradient_empty[notes.at()], notes.parity() ^ 1);
      Notes& to = handover.notes[notes.at()];
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        to.statistics[i * 32 + lane] = statistics[i];
        if (lane % kPart == 0) to.position[(i * 32 + lane) / kPart] = position[i];
        row[i] = next_row[i];
      }
      if (lane == 0) handover.least[notes.at()] = least;
      Arrive(&handover.note_full[notes.at()]);
      look_up();
      find(entry + 2 * cut.queries, next_row);
    }
  }
}

// ---- The warpgroup that computes -----------------------------------------------------------------------------------

template <int KW, int VW>
__device__ void Differentiate(const BackwardSelected& params, const Work& work, Worker<KW, VW>& worker,
                              Handover<KW, VW>& handover) {
  const int warp = threadIdx.x % kWarpgroup / 32, lane = threadIdx.x % 32;
  const float scale_log2 = params.scale * CUDART_L2E_F;
  const uint32_t k = SharedAddress(worker.k), v = SharedAddress(worker.v);

  float s[kRows / 2], d_p[kRows / 2], d_k[KW / 2], d_v[VW / 2];
  uint32_t p[kRows / 16][4], d_s[kRows / 16][4];
  Turns<kItemStages> items;
  Ring<Worker<KW, VW>::kQueryStages> q_stages;
  Turns<Worker<KW, VW>::kGradientStages> notes;
  int first_key = 0;  // the warp's

  const auto arrive = [&](uint64_t* barrier) {
    if (lane == 0) Arrive(barrier);
  };
  const auto multiply_queries = [&](const auto& at) {
    WaitBarrier(&handover.q_full[at.at], at.parity);
    const uint32_t q = SharedAddress(worker.q[at.at]);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < KW / 16; ++i) {
      const uint32_t in_row = i % 4 * 32;
      Wgmma(s, AlongRows(k + i / 4 * kKeysChunkBytes + in_row),
            AlongRows(q + i / 4 * kPart * kChunkRowBytes + in_row, kPartBytes<KW>), i > 0);
    }
    WgmmaCommit();
  };
  // From S to the products that add to d_v and d_k, which are under way then.
  const auto take_step = [&](bool last) {
    WaitBarrier(&handover.d_o_full[notes.at()], notes.parity());
    const uint32_t q = SharedAddress(worker.q[q_stages.at]), d_o = SharedAddress(worker.d_o[notes.at()]);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < VW / 16; ++i) {
      const uint32_t in_row = i % 4 * 32;
      Wgmma(d_p, AlongRows(v + i / 4 * kKeysChunkBytes + in_row),
            AlongRows(d_o + i / 4 * kPart * kChunkRowBytes + in_row, kPartBytes<VW>), i > 0);
    }
    WgmmaCommit();
    WaitBarrier(&handover.note_full[notes.at()], notes.parity());
    // A lane's columns are 8i + 2 * (lane % 4) and the next: two rows' numbers are one access.
    const auto* const statistics = reinterpret_cast<const float4*>(handover.notes[notes.at()].statistics) + lane % 4;
    const bool edge = handover.least[notes.at()] < first_key + 15;
#pragma unroll
    for (int i = 0; i < kRows / 8; ++i) {
      const float4 rows = statistics[i * 4];
      s[i * 4] = Exp2(fmaf(s[i * 4], scale_log2, -rows.x));
      s[i * 4 + 1] = Exp2(fmaf(s[i * 4 + 1], scale_log2, -rows.z));
      s[i * 4 + 2] = Exp2(fmaf(s[i * 4 + 2], scale_log2, -rows.x));
      s[i * 4 + 3] = Exp2(fmaf(s[i * 4 + 3], scale_log2, -rows.z));
    }
    if (edge) {
      const int key = first_key + lane / 4;
#pragma unroll
      for (int i = 0; i < kRows / 8; ++i) {
        const int position = handover.notes[notes.at()].position[i];
        if (key > position) s[i * 4] = s[i * 4 + 1] = 0;
        if (key + 8 > position) s[i * 4 + 2] = s[i * 4 + 3] = 0;
      }
    }
#pragma unroll
    for (int i = 0; i < kRows / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) p[i][j] = PackBf16(s[i * 8 + j * 2], s[i * 8 + j * 2 + 1]);
    }
    Pin(p);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kRows / 16; ++i) {
      Wgmma(d_v, p[i], AcrossRows(d_o + i * 2 * kPartBytes<VW>, kPart * kChunkRowBytes, kPartBytes<VW>), true);
    }
    WgmmaCommit();
    WgmmaWait<1>();
    Pin(d_p);
    if (last) arrive(&handover.keys_empty);
#pragma unroll
    for (int i = 0; i < kRows / 8; ++i) {
      const float4 rows = statistics[i * 4];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int at = i * 4 + j * 2;
        float first = s[at] * (d_p[at] - rows.y), second = s[at + 1] * (d_p[at + 1] - rows.w);
        // What is unseen may be no number.
        if (edge && s[at] == 0) first = 0;
        if (edge && s[at + 1] == 0) second = 0;
        d_s[i / 2][i % 2 * 2 + j] = PackBf16(first, second);
      }
    }
    Pin(d_s);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kRows / 16; ++i) {
      Wgmma(d_k, d_s[i], AcrossRows(q + i * 2 * kPartBytes<KW>, kPart * kChunkRowBytes, kPartBytes<KW>), true);
    }
    WgmmaCommit();
  };
  const auto release_gradients = [&] {
    Pin(d_v);
    arrive(&handover.gradient_empty[notes.at()]);
    notes.Next();
  };
  const auto release_queries = [&] {
    Pin(d_k);
    arrive(&handover.q_empty[q_stages.at]);
    q_stages.Next();
  };

  while (true) {
    const SelectedItem item = NextItem(handover, items);
    if (item.count == 0) return;
    const Place place(params, work.items, item.target);
    first_key = place.first_key + warp * 16;
#pragma unroll
    for (int i = 0; i < KW / 2; ++i) d_k[i] = 0;
#pragma unroll
    for (int i = 0; i < VW / 2; ++i) d_v[i] = 0;
    WaitBarrier(&handover.keys_full, items.turn % 2 ^ 1);
    const int first_key_row = handover.first_key_row;

    multiply_queries(q_stages);
    WgmmaWait<0>();
    Pin(s);
    for (int left = item.count - work.cut.queries; left > 0; left -= work.cut.queries) {
      take_step(false);
      auto next = q_stages;
      next.Next();
      multiply_queries(next);
      WgmmaWait<2>();
      release_gradients();
      WgmmaWait<1>();
      release_queries();
      WgmmaWait<0>();
      Pin(s);
    }
    take_step(true);
    WgmmaWait<1>();
    release_gradients();
    WgmmaWait<0>();
    release_queries();

    // A warp has the same keys in every item of theirs: each waits for itself.
    int32_t* const done = work.items.done + int64_t{item.target} * kWarps + warp;
#ifndef SB_NOWAIT
    if (item.before > 0) {
      if (lane == 0) {
        while (LoadAcquire(done) != item.before) {
        }
      }
      __syncwarp();
    }
#endif
    const auto add = [&]<int W>(const float(&sum)[W / 2], float* d_x, float factor) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int row = warp * 16 + lane / 4 + j * 8;
        if (row >= place.keys || d_x == nullptr) continue;
        const int64_t key_row = first_key_row >= 0 ? int64_t{first_key_row} + row
                                                   : PageRow(params.table, params.page_rows, place.first_key + row);
        if (key_row < 0) continue;
        float* const to = d_x + (key_row * params.groups + place.group) * W + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < W / 8; ++i) {
          AddToMemory(to + i * 8, factor * sum[i * 4 + j * 2], factor * sum[i * 4 + j * 2 + 1]);
        }
      }
    };
#ifdef SB_NOADD
    if (item.count < 0) {
#endif
      add.template operator()<KW>(d_k, params.d_k, params.scale);
      add.template operator()<VW>(d_v, params.d_v, 1);
#ifdef SB_NOADD
    }
#endif
    __syncwarp();
    if (lane == 0) StoreRelease(done, item.before + item.count);
  }
}

template <int KW, int VW>
__global__ void __launch_bounds__(kThreads, 1)
    SelectedBackwardKeysKernel(const __grid_constant__ BackwardSelected params, const __grid_constant__ Work work,
                               const __grid_constant__ Maps maps) {
  extern __shared__ __align__(1024) unsigned char raw[];
  auto& shared = *reinterpret_cast<Shared<KW, VW>*>(raw);
  // Rows that no query fills are finite.
  auto* const pieces = reinterpret_cast<uint4*>(shared.worker);
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(shared.worker) / sizeof(uint4)); i += kThreads) pieces[i] = {};
  FenceForAsync();
  if (threadIdx.x < kWorkers) {
    auto& handover = shared.handover[threadIdx.x];
    const auto init = [](auto& barriers, int arrivals) {
      for (auto& barrier : barriers) InitBarrier(&barrier, arrivals);
    };
    init(handover.item_full, 1);
    init(handover.item_empty, kWarps + 1);
    InitBarrier(&handover.keys_full, 1);
    InitBarrier(&handover.keys_empty, kWarps);
    init(handover.note_full, 32);
    init(handover.q_full, 1);
    init(handover.q_empty, kWarps);
    init(handover.d_o_full, 1);
    init(handover.gradient_empty, kWarps);
    PublishBarriers();
  }
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    GiveRegisters<24>();
    const int warp = threadIdx.x / 32;
    if (warp % 2 == 0) {
      BringQueries(params, work, maps, shared.worker[warp / 2], shared.handover[warp / 2]);
    } else {
      BringKeys(params, work, maps, shared.worker[warp / 2], shared.handover[warp / 2]);
    }
  } else {
    TakeRegisters<240>();
    const int worker = static_cast<int>(threadIdx.x) / kWarpgroup - 1;
    Differentiate(params, work, shared.worker[worker], shared.handover[worker]);
  }
}

template <int KW, int VW>
void Launch(cudaStream_t stream, const char* operation, const BackwardSelected& params, const Work& work,
            int64_t items) {
  const int64_t queries = int64_t{params.tokens} * params.groups;
  const auto query_map = [&](const void* x, int width) {
    return QueriesMap(operation, x, queries, work.cut.parts, work.cut.heads, width);
  };
  // How many rows of keys there are the table alone knows; it leads to none beyond.
  const auto key_map = [&](const void* x, int width) {
    return RowsMap(operation, x, INT32_MAX, params.groups, width, kKeys, 1);
  };
  const Maps maps = {query_map(params.q, KW), query_map(params.d_o, VW), key_map(params.k, KW), key_map(params.v, VW)};
  constexpr int kBytes = sizeof(Shared<KW, VW>);
  static_assert(kBytes <= 227 * 1024);
  auto* const kernel = SelectedBackwardKeysKernel<KW, VW>;
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), operation);
  kernel<<<ResidentBlocks(operation, CeilDiv(items, kWorkers)), kThreads, kBytes, stream>>>(params, work, maps);
}

SelectedItemsPlan PlanItems(const BackwardSelected& params) { return {params, kKeys, kWarps}; }

}  // namespace

bool SelectedBackwardKeysServedSm90(const BackwardSelected& params) {
  const auto widths = [&](int width) { return params.key_width == width && params.value_width == width; };
  return params.dtype == DType::kBf16 && (widths(64) || widths(128)) && CutStep(params.group_heads()).queries > 0 &&
         AlignedForCopies(params.q) && AlignedForCopies(params.k) && AlignedForCopies(params.v) &&
         AlignedForCopies(params.d_o);
}

int64_t SelectedBackwardKeysScratchSm90(const BackwardSelected& params) {
  return params.keys_wanted() ? PlanItems(params).scratch_bytes() : 0;
}

void SelectedBackwardKeysSm90(cudaStream_t stream, const char* operation, const BackwardSelected& params,
                              unsigned char* scratch) {
  if (!params.keys_wanted()) return;
  const SelectedItemsPlan plan = PlanItems(params);
  const Work work = {plan.Build(stream, operation, params, scratch), CutStep(params.group_heads())};
  if (params.key_width == 64) {
    Launch<64, 64>(stream, operation, params, work, plan.max_items() * work.items.tiles);
  } else {
    Launch<128, 128>(stream, operation, params, work, plan.max_items() * work.items.tiles);
  }
}

}  // namespace longspan
