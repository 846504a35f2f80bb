// d_k and d_v of the window and the compressed branch in bf16 on Hopper, and d_q where that pays. Adds, or writes parts
// of d_k and d_v that SumParts adds.
//
// Cut by key tiles (key_steps.cuh). Scores are computed transposed, keys as rows, so that P and dS are operands of the
// following products as they stand and d_k, d_v stay in registers; four products a step,
//   S = k q   dP = v d_o   dS = P (dP - delta)   d_v += P d_o   d_k += dS q
// of which the next step's S is under way with this one's last.
//
// With d_q a fifth, dS k, is added to memory by the copy engine, key tile after key tile of a step: a count for each
// step says whose turn it is. A block waits only for blocks with lower tickets, which began before it: whatever else
// the GPU runs, the lowest ticket at work waits for nobody. Without it, d_q is a pass of its own with three products
// (range_backward_q): right where a query sees few keys, so that its sums would leave often for little work.
#include "kernels/attention/sm90/kernels.cuh"
#include "kernels/attention/sm90/key_steps.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 3 * kWarpgroup;
constexpr int kQueryStages = 2;  // of what is added to d_q, on its way

// Where d_q's turns stand; zeros before the launch.
struct Turns {
  unsigned* ticket = nullptr;  // of the next block
  unsigned* added = nullptr;   // [G, steps] key tiles
};

struct QueryMaps {
  CUtensorMap d_q[kMaxSegments];
};

template <int KW>
struct QueryTiles {
  Bf16 d_s[kQueryStages][kTileKeys * kWalkRows];
  float d_q[kQueryStages][kWalkRows * KW];  // in chunks of 32 channels
};

template <int KW, int VW, bool kQueries>
struct Shared : KeysShared<KW, VW, KW == 64 ? 4 : 3> {};

template <int KW, int VW>
struct Shared<KW, VW, true> : KeysShared<KW, VW, 2, QueryTiles<KW>> {
  uint64_t d_q_full[kQueryStages], d_q_empty[kQueryStages];
  int ticket;
};

// What the steps add to d_q, key tile after key tile, by one thread.
template <int KW, int VW>
__device__ void AddQueries(const BackwardRange& params, const KeysItem& item, const Walk& walk, const Turns& turns,
                           const QueryMaps& maps, Shared<KW, VW, true>& shared) {
  const QueryTilesGpu& queries = params.queries;
  unsigned* const added = turns.added + static_cast<int64_t>(item.group) * queries.first_tile[queries.count];
  Ring<kQueryStages> ring;
  for (int i = 0; i < walk.count; ++i, ring.Next()) {
    int segment;
    const int step = walk.Step(i, &segment), row = (step - queries.first_tile[segment]) * queries.tile;
    const unsigned turn = item.tile - KeyTilesOf(params, segment, step).begin;
    while (LoadAcquire(added + step) != turn) {
    }
    WaitBarrier(&shared.d_q_full[ring.at], ring.parity);
    for (int chunk = 0; chunk < KW / 32; ++chunk) {
      AddBox(&maps.d_q[segment], SharedAddress(shared.d_q[ring.at]) + chunk * kWalkChunkBytes, chunk * 32,
             item.group * params.group_heads(), row);
    }
    CommitStores();
    WaitForStoresRead<0>();
    Arrive(&shared.d_q_empty[ring.at]);
    WaitForStores<0>();
    FenceForAsyncGlobal();
    AddRelease(added + step, 1);
  }
}

template <int KW, int VW, bool kQueries>
__device__ void Differentiate(const BackwardRange& params, const KeysWork& work, const KeysItem& item, const Walk& walk,
                              Shared<KW, VW, kQueries>& shared, int warpgroup) {
  using Shared = Shared<KW, VW, kQueries>;
  const int thread = threadIdx.x % kWarpgroup, warp = thread / 32, lane = thread % 32;
  const int warp_key = warpgroup * kWarpgroupRows + warp * 16;  // the warp's first, of the tile
  const float scale_log2 = ScaleLog2(params.scale);
  const uint32_t keys_at = warpgroup * kWarpgroupRows * kChunkRowBytes;
  const uint32_t k = SharedAddress(shared.k) + keys_at, v = SharedAddress(shared.v) + keys_at;

  float s[kWalkRows / 2], d_p[kWalkRows / 2], d_k[KW / 2], d_v[VW / 2];
  uint32_t p[kWalkRows / 16][4], d_s[kWalkRows / 16][4];
#pragma unroll
  for (int i = 0; i < KW / 2; ++i) d_k[i] = 0;
#pragma unroll
  for (int i = 0; i < VW / 2; ++i) d_v[i] = 0;

  Ring<Shared::kStages> ring;
  const auto multiply_queries = [&](Ring<Shared::kStages> at) {
    WaitBarrier(&shared.q_full[at.at], at.parity);
    const uint32_t q = SharedAddress(shared.q[at.at]);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < KW / 16; ++i) {
      const uint32_t in_row = i % 4 * 32;
      Wgmma(s, AlongRows(k + i / 4 * kKeyChunkBytes + in_row), AlongRows(q + i / 4 * kWalkChunkBytes + in_row), i > 0);
    }
    WgmmaCommit();
  };
  const auto multiply_d_o = [&] {
    WaitBarrier(&shared.d_o_full[ring.at], ring.parity);
    const uint32_t d_o = SharedAddress(shared.d_o[ring.at]);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < VW / 16; ++i) {
      const uint32_t in_row = i % 4 * 32;
      Wgmma(d_p, AlongRows(v + i / 4 * kKeyChunkBytes + in_row), AlongRows(d_o + i / 4 * kWalkChunkBytes + in_row),
            i > 0);
    }
    WgmmaCommit();
  };
  // dS to where both warpgroups read it, what it adds to d_q, in d_p's place: 64 channels of all rows a warpgroup; and
  // to d_k. dS comes from there for both: with P's products done and no dS in registers the next S fits beside these.
  Ring<kQueryStages> d_q_ring;
  const auto multiply_shared = [&](uint32_t q) {
    if constexpr (kQueries) {
      WgmmaWait<0>();
      Pin(d_v);
      const uint32_t to = SharedAddress(shared.d_s[d_q_ring.at]),
                     keys = SharedAddress(shared.k) + warpgroup * kKeyChunkBytes;
#pragma unroll
      for (int i = 0; i < kWalkRows / 16; ++i) {
        StoreMatrices(to + Swizzled(warp_key + lane % 16, i * 2 + lane / 16), d_s[i]);
      }
      FenceForAsync();
      // The place is free: whoever is here has waited for the products of the step before, the other's for those of the
      // step before that, which read it last.
      SyncNamed(1, 2 * kWarpgroup);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < kTileKeys / 16; ++i) {
        const uint32_t at = i * 16 * kChunkRowBytes;
        WgmmaAcross(d_p, AcrossRows(to + at, 0), AcrossRows(keys + at, 0), i > 0);
      }
      WgmmaCommit();
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < kWalkRows / 16; ++i) {
        WgmmaAlongAcross(d_k, AlongRows(to + keys_at + i * 32),
                         AcrossRows(q + i * 16 * kChunkRowBytes, kWalkChunkBytes), true);
      }
      WgmmaCommit();
    }
  };
  // With `later` groups of products under way that were begun after it.
  const auto hand_over_queries = [&]<int later>() {
    if constexpr (kQueries) {
      WgmmaWait<later>();
      Pin(d_p);
      WaitBarrier(&shared.d_q_empty[d_q_ring.at], d_q_ring.parity ^ 1);
      const uint32_t to = SharedAddress(shared.d_q[d_q_ring.at]) + warpgroup * 2 * kWalkChunkBytes + lane % 2 * 8;
#pragma unroll
      for (int i = 0; i < kWalkRows / 8; ++i) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          StoreShared(to + i / 4 * kWalkChunkBytes + Swizzled(warp * 16 + lane / 4 + j * 8, i % 4 * 2 + lane % 4 / 2),
                      params.scale * d_p[i * 4 + j * 2], params.scale * d_p[i * 4 + j * 2 + 1]);
        }
      }
      FenceForAsync();
      SyncNamed(2 + warpgroup, kWarpgroup);
      if (thread == 0) Arrive(&shared.d_q_full[d_q_ring.at]);
      d_q_ring.Next();
    }
  };
  // From S to the products that add to d_v and d_k, which are under way then. Nothing is before: the compiler
  // serializes products that a loop's end divides.
  const auto take_step = [&] {
    multiply_d_o();
    WaitBarrier(&shared.note_full[ring.at], ring.parity);
    const auto* const lse_log2 = reinterpret_cast<const float2*>(shared.lse_log2[ring.at]) + lane % 4;
    const auto* const delta = reinterpret_cast<const float2*>(shared.delta[ring.at]) + lane % 4;
    const auto* const seen = reinterpret_cast<const int4*>(shared.seen[ring.at]) + lane % 4;
    const SpanGpu all_see = shared.all_see[ring.at];
    const int key = item.keys.begin + warp_key;
    TakeWeights(s, scale_log2, [&](int i) { return lse_log2[i * 4]; });
    if (key < all_see.begin || key + 16 > all_see.end) {
      MaskWeights(s, key + lane / 4, [&](int i) { return seen[i * 4]; });
    }
    PackWeights(s, p);
    const uint32_t q = SharedAddress(shared.q[ring.at]), d_o = SharedAddress(shared.d_o[ring.at]);
    Pin(p);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kWalkRows / 16; ++i) {
      Wgmma(d_v, p[i], AcrossRows(d_o + i * 16 * kChunkRowBytes, kWalkChunkBytes), true);
    }
    WgmmaCommit();
    WgmmaWait<1>();
    Pin(d_p);
    PackGradients(
        s, d_p, [&](int i) { return delta[i * 4]; }, d_s);
    if constexpr (kQueries) {
      multiply_shared(q);
    } else {
      Pin(d_s);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < kWalkRows / 16; ++i) {
        Wgmma(d_k, d_s[i], AcrossRows(q + i * 16 * kChunkRowBytes, kWalkChunkBytes), true);
      }
      WgmmaCommit();
    }
  };
  const auto release_step = [&] {
    Pin(d_v);
    Pin(d_k);
    __syncwarp();
    if (lane == 0) Arrive(&shared.empty[ring.at]);
    ring.Next();
  };

  WaitBarrier(&shared.k_full, 0);
  multiply_queries(ring);
  WaitBarrier(&shared.v_full, 0);
  WgmmaWait<0>();
  Pin(s);
  for (int i = 1; i < walk.count; ++i) {
    take_step();
    Ring<Shared::kStages> next = ring;
    next.Next();
    multiply_queries(next);
    hand_over_queries.template operator()<2>();
    WgmmaWait<1>();
    release_step();
    WgmmaWait<0>();
    Pin(s);
  }
  take_step();
  hand_over_queries.template operator()<1>();
  WgmmaWait<0>();
  Pin(d_v);
  Pin(d_k);

  WriteKeys<KW, VW>(params, work, item, walk.whole, warp_key, d_k, d_v);
}

template <int KW, int VW, bool kQueries>
__global__ void __launch_bounds__(kThreads, 1)
    RangeBackwardKeysKernel(const __grid_constant__ BackwardRange params, const __grid_constant__ KeysWork work,
                            const __grid_constant__ Turns turns, const __grid_constant__ KeysMaps maps,
                            const __grid_constant__ QueryMaps query_maps) {
  extern __shared__ __align__(1024) unsigned char raw[];
  auto& shared = *reinterpret_cast<Shared<KW, VW, kQueries>*>(raw);
  if (SharedAddress(raw) % 1024 != 0) __trap();
  int index = blockIdx.x;
  if constexpr (kQueries) {
    if (threadIdx.x == 0) {
      shared.ticket = static_cast<int>(atomicAdd(turns.ticket, 1));
      for (int i = 0; i < kQueryStages; ++i) {
        InitBarrier(&shared.d_q_full[i], 2);
        InitBarrier(&shared.d_q_empty[i], 1);
      }
    }
    __syncthreads();
    index = shared.ticket;
  }
  const KeysItem item(params, work, index);
  if (!MaySee(params, item)) return;
  StartKeys(params, item, shared);
  __syncthreads();
  const Walk walk(shared.steps, params.queries.count, item.part, work.period);
  if (walk.count == 0) return;

  if (threadIdx.x < kWarpgroup) {
    GiveRegisters<BringingRegisters(KW)>();
    BringAll<KW, VW, !kQueries>(params, maps, item, walk, shared);
    if constexpr (kQueries) {
      if (threadIdx.x == kWarpgroup - 32) AddQueries<KW, VW>(params, item, walk, turns, query_maps, shared);
    }
  } else {
    TakeRegisters<MultiplyingRegisters(KW)>();
    Differentiate<KW, VW, kQueries>(params, work, item, walk, shared, static_cast<int>(threadIdx.x) / kWarpgroup - 1);
  }
}

template <int KW, int VW, bool kQueries>
void Launch(cudaStream_t stream, const char* operation, const BackwardRange& cut, const KeysWork& work,
            const Turns& turns) {
  const KeysMaps maps = MapKeys(operation, cut);
  QueryMaps query_maps;
  if (kQueries) {
    ForSegments(cut.queries, [&](int i, int64_t row, int rows) {
      query_maps.d_q[i] =
          SumsMap(operation, cut.d_q + row * cut.heads * KW, rows, cut.heads, KW, cut.queries.tile, cut.group_heads());
    });
  }
  constexpr int kBytes = sizeof(Shared<KW, VW, kQueries>);
  static_assert(kBytes <= 227 << 10);
  auto* const kernel = RangeBackwardKeysKernel<KW, VW, kQueries>;
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), operation);
  kernel<<<work.tiles * cut.groups * work.parts, kThreads, kBytes, stream>>>(cut, work, turns, maps, query_maps);
  if (work.parts > 1) SumParts(stream, cut, work);
}

int64_t TurnsBytes(const BackwardRange& cut) {
  return (int64_t{cut.groups} * cut.queries.tiles() + 1) * static_cast<int64_t>(sizeof(unsigned));
}

}  // namespace

// With few keys, in parts, d_q's turns of a step follow one another closely. Dense attention of many tokens loses what
// the two products less gain (README.md).
bool RangeBackwardTogetherSm90(const BackwardRange& params) {
  return params.d_q != nullptr && params.keys_wanted() && params.key_width == 128 &&
         params.sight.window >= kShortWindow && PlanKeys(CutInSteps(params)).parts > 1;
}

int64_t RangeBackwardKeysScratchSm90(const BackwardRange& params) {
  const BackwardRange cut = CutInSteps(params);
  return PartialBytes(cut, PlanKeys(cut)) + (RangeBackwardTogetherSm90(params) ? TurnsBytes(cut) : 0);
}

void RangeBackwardKeysSm90(cudaStream_t stream, const char* operation, const BackwardRange& params,
                           unsigned char* scratch) {
  const BackwardRange cut = CutInSteps(params);
  KeysWork work = PlanKeys(cut);
  if (work.parts > 1) work.partial = reinterpret_cast<float*>(scratch);
  if (RangeBackwardTogetherSm90(params)) {
    auto* const turns = reinterpret_cast<unsigned*>(scratch + PartialBytes(cut, work));
    CudaCheck(cudaMemsetAsync(turns, 0, TurnsBytes(cut), stream), operation);
    Launch<128, 128, true>(stream, operation, cut, work, {turns, turns + 1});
  } else if (params.key_width == 64) {
    Launch<64, 64, false>(stream, operation, cut, work, {});
  } else {
    Launch<128, 128, false>(stream, operation, cut, work, {});
  }
}

}  // namespace longspan
