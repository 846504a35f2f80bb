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
#include "kernels/attention/sm90/selected_bring.cuh"

namespace longspan {
namespace {

template <int KW, int VW>
struct Shared {
  ListWorker<KW, VW> worker[kWorkers];
  ListHandover<KW, VW> handover[kWorkers];
};

// ---- The warpgroup that computes -----------------------------------------------------------------------------------

template <int KW, int VW>
__device__ void Differentiate(const BackwardSelected& params, const ListWork& work, ListWorker<KW, VW>& worker,
                              ListHandover<KW, VW>& handover) {
  const int warp = threadIdx.x % kWarpgroup / 32, lane = threadIdx.x % 32;
  const float scale_log2 = params.scale * CUDART_L2E_F;
  const uint32_t k = SharedAddress(worker.k), v = SharedAddress(worker.v);

  float s[kWorkerRows / 2], d_p[kWorkerRows / 2], d_k[KW / 2], d_v[VW / 2];
  uint32_t p[kWorkerRows / 16][4], d_s[kWorkerRows / 16][4];
  PowerRing<kItemStages> items;
  Ring<ListWorker<KW, VW>::kQueryStages> q_stages;
  PowerRing<ListWorker<KW, VW>::kGradientStages> notes;

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
      Wgmma(s, AlongRows(k + i / 4 * kWorkerChunkBytes + in_row),
            AlongRows(q + i / 4 * kPartRows * kChunkRowBytes + in_row, kPartBytes<KW>), i > 0);
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
      Wgmma(d_p, AlongRows(v + i / 4 * kWorkerChunkBytes + in_row),
            AlongRows(d_o + i / 4 * kPartRows * kChunkRowBytes + in_row, kPartBytes<VW>), i > 0);
    }
    WgmmaCommit();
    // A lane's columns are 8i + 2 * (lane % 4) and the next: two rows' numbers are one access.
    const auto* const statistics = reinterpret_cast<const float4*>(handover.notes[notes.at()].statistics) + lane % 4;
    const bool edge = handover.notes[notes.at()].least < warp * 16 + 16;
    TakeWeights(s, scale_log2, [&](int i) { return float2{statistics[i * 4].x, statistics[i * 4].z}; });
    if (edge) {
      const auto* const seen = reinterpret_cast<const uchar2*>(handover.notes[notes.at()].seen) + lane % 4;
      MaskWeights(s, warp * 16 + lane / 4, [&](int i) { return int4{0, seen[i * 4].x, 0, seen[i * 4].y}; });
    }
    PackWeights(s, p);
    Pin(p);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kWorkerRows / 16; ++i) {
      Wgmma(d_v, p[i], AcrossRows(d_o + i * 2 * kPartBytes<VW>, kPartRows * kChunkRowBytes, kPartBytes<VW>), true);
    }
    WgmmaCommit();
    WgmmaWait<1>();
    Pin(d_p);
    if (last) arrive(&handover.keys_empty);
    PackGradients(
        s, d_p,
        [&](int i) {
          return float2{statistics[i * 4].y, statistics[i * 4].w};
        },
        d_s);
    if (edge) {  // what is unseen may be no number
#pragma unroll
      for (int i = 0; i < kWorkerRows / 4; ++i) {
        if (s[i * 2] == 0) d_s[i / 4][i % 4] &= 0xFFFF0000u;
        if (s[i * 2 + 1] == 0) d_s[i / 4][i % 4] &= 0xFFFFu;
      }
    }
    Pin(d_s);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kWorkerRows / 16; ++i) {
      Wgmma(d_k, d_s[i], AcrossRows(q + i * 2 * kPartBytes<KW>, kPartRows * kChunkRowBytes, kPartBytes<KW>), true);
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
    WaitBarrier(&handover.item_full[items.at()], items.parity());
    int left = handover.item[items.at()].count;
    if (left == 0) return;
#pragma unroll
    for (int i = 0; i < KW / 2; ++i) d_k[i] = 0;
#pragma unroll
    for (int i = 0; i < VW / 2; ++i) d_v[i] = 0;
    WaitBarrier(&handover.keys_full, items.turn % 2);

    multiply_queries(q_stages);
    WgmmaWait<0>();
    Pin(s);
    for (left -= work.cut.queries; left > 0; left -= work.cut.queries) {
      take_step(false);
      WgmmaWait<1>();
      release_gradients();
      auto next = q_stages;
      next.Next();
      multiply_queries(next);
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

    const ListItem item = handover.item[items.at()];
    const int first_key_row = handover.first_key_row[items.at()];
    __syncwarp();
    arrive(&handover.item_empty[items.at()]);
    items.Next();
    const ListKeys place(params, work.items, item.target);
    // A warp has the same keys in every item of theirs: each waits for itself.
    unsigned* const done = work.items.done + int64_t{item.target} * kWorkerWarps + warp;
    if (item.before > 0) {
      if (lane == 0) {
        while (LoadAcquire(done) != static_cast<unsigned>(item.before)) {
        }
      }
      __syncwarp();
    }
    const uint64_t policy = PassCachePolicy();
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
          AddToMemory(to + i * 8, factor * sum[i * 4 + j * 2], factor * sum[i * 4 + j * 2 + 1], policy);
        }
      }
    };
    add.template operator()<KW>(d_k, params.d_k, params.scale);
    add.template operator()<VW>(d_v, params.d_v, 1);
    __syncwarp();
    if (lane == 0) StoreRelease(done, item.before + item.count);
  }
}

template <int KW, int VW>
__global__ void __launch_bounds__(kListThreads, 1)
    SelectedBackwardKeysKernel(const __grid_constant__ BackwardSelected params, const __grid_constant__ ListWork work,
                               const __grid_constant__ ListMaps maps) {
  extern __shared__ __align__(1024) unsigned char raw[];
  auto& shared = *reinterpret_cast<Shared<KW, VW>*>(raw);
  // Rows that no query fills are finite.
  auto* const pieces = reinterpret_cast<uint4*>(shared.worker);
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(shared.worker) / sizeof(uint4)); i += kListThreads)
    pieces[i] = {};
  if (threadIdx.x < kWorkers) {
    auto& handover = shared.handover[threadIdx.x];
    for (auto& notes : handover.notes) {
      for (int i = 0; i < kWorkerRows; ++i) notes.statistics[i] = {}, notes.seen[i] = 0;
    }
    const auto init = [](auto& barriers, int arrivals) {
      for (auto& barrier : barriers) InitBarrier(&barrier, arrivals);
    };
    init(handover.item_full, 1);
    init(handover.item_empty, kWorkerWarps + 1);
    InitBarrier(&handover.keys_full, 1);
    InitBarrier(&handover.keys_empty, kWorkerWarps);
    init(handover.q_full, 1);
    init(handover.q_empty, kWorkerWarps);
    init(handover.d_o_full, 1);
    init(handover.gradient_empty, kWorkerWarps);
    PublishBarriers();
  }
  FenceForAsync();
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    GiveRegisters<BringingRegisters(KW)>();
    const int warp = threadIdx.x / 32;
    if (warp % 2 == 0) {
      BringQueries(params, work, maps, shared.worker[warp / 2], shared.handover[warp / 2]);
    } else {
      BringKeys(params, work, maps, shared.worker[warp / 2], shared.handover[warp / 2]);
    }
  } else {
    TakeRegisters<MultiplyingRegisters(KW)>();
    const int worker = static_cast<int>(threadIdx.x) / kWarpgroup - 1;
    Differentiate(params, work, shared.worker[worker], shared.handover[worker]);
  }
}

// The statistics of the rows of a step's query, [T,G,rows_of_query], and of a query that is none.
__global__ void StatisticsKernel(const __grid_constant__ BackwardSelected params, StepCut cut, RowStatistics* to) {
  const int64_t i = GridThread(), queries = int64_t{params.tokens} * params.groups;
  const int rows = cut.rows_of_query();
  if (i >= (queries + 1) * rows) return;
  const int64_t query = i / rows;
  const int row = i % rows, in_part = row % kPartRows;
  const bool there = query < queries && (cut.sharers > 1 || in_part < cut.heads);
  const int head = cut.sharers > 1 ? row : row / kPartRows * cut.heads + in_part;
  to[i] = there ? StatisticsOf(params, query * params.group_heads() + head) : RowStatistics{};
}

int64_t StatisticsRows(const BackwardSelected& params) {
  return (int64_t{params.tokens} * params.groups + 1) * CutStep(params.group_heads()).rows_of_query();
}

template <int KW, int VW>
void Launch(cudaStream_t stream, const char* operation, const BackwardSelected& params, const ListWork& work,
            int64_t items) {
  const int64_t queries = int64_t{params.tokens} * params.groups;
  const auto query_map = [&](const void* x, int width) {
    return QueriesMap(operation, x, queries, work.cut.parts, work.cut.heads, width, work.cut.sharers == 1);
  };
  // How many rows of keys there are the table alone knows; it leads to none beyond.
  const auto key_map = [&](const void* x, int width) {
    return RowsMap(operation, x, INT32_MAX, params.groups, width, kWorkerKeys, 1);
  };
  const ListMaps maps = {query_map(params.q, KW), query_map(params.d_o, VW), key_map(params.k, KW),
                         key_map(params.v, VW)};
  constexpr int kBytes = sizeof(Shared<KW, VW>);
  static_assert(kBytes <= 227 * 1024);
  auto* const kernel = SelectedBackwardKeysKernel<KW, VW>;
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), operation);
  kernel<<<ResidentBlocks(operation, CeilDiv(items, kWorkers), params.left_processors), kListThreads, kBytes, stream>>>(
      params, work, maps);
}

ListItemsPlan PlanItems(const BackwardSelected& params) {
  return {params, kWorkerKeys, kWorkerWarps, CutStep(params.group_heads()).queries};
}

}  // namespace

bool SelectedBackwardKeysServedSm90(const BackwardSelected& params) {
  const auto widths = [&](int width) { return params.key_width == width && params.value_width == width; };
  return params.dtype == DType::kBf16 && (widths(64) || widths(128)) && params.group_heads() > 1 &&
         CutStep(params.group_heads()).queries > 0 && AlignedForCopies(params.q) && AlignedForCopies(params.k) &&
         AlignedForCopies(params.v) && AlignedForCopies(params.d_o);
}

int64_t SelectedBackwardKeysScratchSm90(const BackwardSelected& params) {
  if (!params.keys_wanted()) return 0;
  ScratchCut cut;
  cut.Add(PlanItems(params).scratch_bytes());
  cut.Add(StatisticsRows(params) * static_cast<int64_t>(sizeof(RowStatistics)));
  return cut.bytes;
}

void SelectedBackwardKeysSm90(cudaStream_t stream, const char* operation, const BackwardSelected& params,
                              unsigned char* scratch) {
  if (!params.keys_wanted()) return;
  const ListItemsPlan plan = PlanItems(params);
  ScratchCut cut;
  cut.Add(plan.scratch_bytes());
  auto* const statistics = reinterpret_cast<RowStatistics*>(scratch + cut.bytes);
  const ListWork work = {plan.Build(stream, operation, params, scratch), CutStep(params.group_heads()), statistics};
  StatisticsKernel<<<GridFor(StatisticsRows(params), 256), 256, 0, stream>>>(params, work.cut, statistics);
  if (params.key_width == 64) {
    Launch<64, 64>(stream, operation, params, work, plan.max_items() * work.items.tiles);
  } else {
    Launch<128, 128>(stream, operation, params, work, plan.max_items() * work.items.tiles);
  }
}

}  // namespace longspan
