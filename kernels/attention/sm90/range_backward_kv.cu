// d_k and d_v of the window and the compressed branch in bf16 on Hopper. Adds to both, or writes parts that SumParts
// adds up in order.
//
// A block has a tile of 128 keys of one group and walks over the queries that see any of them, 64 rows (queries x heads
// of the group) a step. Two warpgroups own 64 keys each. Scores are computed transposed, keys as rows, so that P and dS
// are operands of the following products as they stand and d_k, d_v stay in registers; four products a step,
//   S = k q   dP = v d_o   dS = P (dP - delta)   d_v += P d_o   d_k += dS q
// of which the next step's S is under way with this one's last. Warps of a third warpgroup bring q, d_o and what is
// known of their rows.
#include "kernels/attention/sm90/kernels.cuh"
#include "kernels/attention/sm90/range_backward.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 3 * kWarpgroup;
constexpr int kStepRows = 64;
constexpr int kStepChunkBytes = kStepRows * kChunkRowBytes;
constexpr int kStepStages = 3;  // of steps in shared memory: this one and those under way

constexpr int64_t kMinSteps = 64;    // of a part
constexpr int64_t kMaxParts = 2048;  // whose sums are in scratch

// A part is a key tile's steps among [part * steps, (part + 1) * steps) of the call's, which are its query tiles.
struct Work {
  int tiles = 1;             // of keys
  int parts = 1;             // of a tile
  int steps = 1;             // of a part
  int period = 1;            // steps after which blocks that walk together begin anew
  float* partial = nullptr;  // [tiles, groups, parts] of [kTileKeys, KW + VW]; null when parts == 1
};

struct Maps {
  // By segment, whose rows end where the map does: what comes after them is zeros.
  CUtensorMap q[kMaxSegments], d_o[kMaxSegments];
  RowMaps k, v;
};

template <int KW, int VW>
struct Shared {
  Bf16 k[kTileKeys * KW];
  Bf16 v[kTileKeys * VW];
  Bf16 q[kStepStages][kStepRows * KW];
  Bf16 d_o[kStepStages][kStepRows * VW];
  RowStatistics statistics[kStepStages][kStepRows];
  SpanGpu seen[kStepStages][kStepRows];
  SpanGpu all_see[kStepStages];  // the keys that every row of the step sees
  SpanGpu steps[kMaxSegments];   // of each segment, those that see any of the keys
  uint64_t k_full, v_full;
  uint64_t q_full[kStepStages], d_o_full[kStepStages], note_full[kStepStages], empty[kStepStages];
};

// The steps of a segment with queries at `positions`.
__device__ SpanGpu StepsOf(const QueryTilesGpu& queries, int segment, SpanGpu positions) {
  const int first = max(positions.begin - queries.begin[segment], 0),
            end = min(positions.end - queries.begin[segment], queries.length[segment]);
  if (first >= end) return {0, 0};
  const int first_step = queries.first_tile[segment];
  return {first_step + first / queries.tile, first_step + (end - 1) / queries.tile + 1};
}

__device__ SpanGpu Common(SpanGpu a, SpanGpu b) { return {max(a.begin, b.begin), min(a.end, b.end)}; }

// What a block does.
struct Item {
  int group;
  SpanGpu keys;
  SpanGpu part;  // of the call's steps
  int64_t partial;

  __device__ Item(const BackwardRange& params, const Work& work, int tile, int group, int part)
      : group(group),
        keys{tile * kTileKeys, min((tile + 1) * kTileKeys, params.key_rows)},
        part{part * work.steps, (part + 1) * work.steps},
        partial((static_cast<int64_t>(tile) * params.groups + group) * work.parts + part) {}
};

// The steps of an item, one segment after another, from the spans of all segments.
struct Walk {
  const SpanGpu* of_segments;
  int segments;
  SpanGpu part;
  int count = 0, start = 0;

  __device__ Walk(const SpanGpu* of_segments, int segments, SpanGpu part, int period)
      : of_segments(of_segments), segments(segments), part(part) {
    int first = -1;
    for (int i = 0; i < segments; ++i) {
      const SpanGpu here = Common(of_segments[i], part);
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

// The item's keys or values, x [R,G,W]. Rows that nobody sees may be anything, or nowhere, and become zeros.
template <int W>
__device__ void BringKeys(const BackwardRange& params, const RowMaps& maps, const void* x, const Item& item,
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
template <int W>
__device__ void BringSteps(const BackwardRange& params, const CUtensorMap* maps, const Item& item, const Walk& walk,
                           Bf16 (*stages)[kStepRows * W], uint64_t* full, uint64_t* empty) {
  const QueryTilesGpu& queries = params.queries;
  const int group_heads = params.group_heads(), bytes = queries.tile * group_heads * W * sizeof(Bf16);
  Ring<kStepStages> ring;
  for (int i = 0; i < walk.count; ++i, ring.Next()) {
    int segment;
    const int step = walk.Step(i, &segment), row = (step - queries.first_tile[segment]) * queries.tile;
    WaitBarrier(&empty[ring.at], ring.parity ^ 1);
    ArriveAndExpect(&full[ring.at], bytes);
    for (int chunk = 0; chunk < W / kChunk; ++chunk) {
      CopyBox(SharedAddress(stages[ring.at]) + chunk * kStepChunkBytes, &maps[segment], chunk * kChunk,
              item.group * group_heads, row, &full[ring.at]);
    }
  }
}

// What is known of the steps' rows, by a warp.
template <int KW, int VW>
__device__ void BringNotes(const BackwardRange& params, const Item& item, const Walk& walk, Shared<KW, VW>& shared) {
  constexpr int kRowsOfLane = kStepRows / 32;
  const QueryTilesGpu& queries = params.queries;
  const int lane = threadIdx.x % 32, group_heads = params.group_heads();
  Ring<kStepStages> ring;
  for (int i = 0; i < walk.count; ++i, ring.Next()) {
    int segment;
    const int step = walk.Step(i, &segment), offset = (step - queries.first_tile[segment]) * queries.tile,
              rows = min(queries.tile, queries.length[segment] - offset) * group_heads;
    RowStatistics statistics[kRowsOfLane];
    SpanGpu seen[kRowsOfLane], all = {INT_MIN, INT_MAX};
#pragma unroll
    for (int j = 0; j < kRowsOfLane; ++j) {
      const int row = j * 32 + lane, query = offset + row / group_heads;
      seen[j] = {INT_MIN, INT_MAX};
      if (row >= rows) continue;
      statistics[j] = StatisticsOf(params, static_cast<int64_t>(queries.row[segment] + query) * params.heads +
                                               item.group * group_heads + row % group_heads);
      seen[j] = params.sight.Seen(queries.begin[segment] + query);
      all = Common(all, seen[j]);
    }
    all = {__reduce_max_sync(~0u, all.begin), __reduce_min_sync(~0u, all.end)};
    WaitBarrier(&shared.empty[ring.at], ring.parity ^ 1);
#pragma unroll
    for (int j = 0; j < kRowsOfLane; ++j) {
      shared.statistics[ring.at][j * 32 + lane] = statistics[j];
      shared.seen[ring.at][j * 32 + lane] = seen[j];
    }
    if (lane == 0) shared.all_see[ring.at] = all;
    Arrive(&shared.note_full[ring.at]);
  }
}

template <int KW, int VW>
__device__ void Differentiate(const BackwardRange& params, const Work& work, const Item& item, const Walk& walk,
                              bool alone, Shared<KW, VW>& shared, int warpgroup) {
  const int thread = threadIdx.x % kWarpgroup, warp = thread / 32, lane = thread % 32;
  const int warp_key = warpgroup * kWarpgroupRows + warp * 16;  // the warp's first, of the tile
  const float scale_log2 = ScaleLog2(params.scale);
  const uint32_t keys_at = warpgroup * kWarpgroupRows * kChunkRowBytes;
  const uint32_t k = SharedAddress(shared.k) + keys_at, v = SharedAddress(shared.v) + keys_at;

  float s[kStepRows / 2], d_p[kStepRows / 2], d_k[KW / 2], d_v[VW / 2];
  uint32_t p[kStepRows / 16][4], d_s[kStepRows / 16][4];
#pragma unroll
  for (int i = 0; i < KW / 2; ++i) d_k[i] = 0;
#pragma unroll
  for (int i = 0; i < VW / 2; ++i) d_v[i] = 0;

  Ring<kStepStages> ring;
  const auto multiply_queries = [&](Ring<kStepStages> at) {
    WaitBarrier(&shared.q_full[at.at], at.parity);
    const uint32_t q = SharedAddress(shared.q[at.at]);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < KW / 16; ++i) {
      const uint32_t in_row = i % 4 * 32;
      Wgmma(s, AlongRows(k + i / 4 * kKeyChunkBytes + in_row), AlongRows(q + i / 4 * kStepChunkBytes + in_row), i > 0);
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
      Wgmma(d_p, AlongRows(v + i / 4 * kKeyChunkBytes + in_row), AlongRows(d_o + i / 4 * kStepChunkBytes + in_row),
            i > 0);
    }
    WgmmaCommit();
  };
  // From S to the products that add to d_v and d_k, which are under way then. Nothing is before: the compiler
  // serializes products that a loop's end divides.
  const auto take_step = [&] {
    multiply_d_o();
    WaitBarrier(&shared.note_full[ring.at], ring.parity);
    // A lane's columns are 8i + 2 * (lane % 4) and the next: two rows' numbers are one access.
    const auto* const statistics = reinterpret_cast<const float4*>(shared.statistics[ring.at]) + lane % 4;
    const auto* const seen = reinterpret_cast<const int4*>(shared.seen[ring.at]) + lane % 4;
    const SpanGpu all = shared.all_see[ring.at];
    const int first_key = item.keys.begin + warp_key;
#pragma unroll
    for (int i = 0; i < kStepRows / 8; ++i) {
      const float4 rows = statistics[i * 4];
      s[i * 4] = Exp2(fmaf(s[i * 4], scale_log2, -rows.x));
      s[i * 4 + 1] = Exp2(fmaf(s[i * 4 + 1], scale_log2, -rows.z));
      s[i * 4 + 2] = Exp2(fmaf(s[i * 4 + 2], scale_log2, -rows.x));
      s[i * 4 + 3] = Exp2(fmaf(s[i * 4 + 3], scale_log2, -rows.z));
    }
    if (first_key < all.begin || first_key + 16 > all.end) {
      const int key = first_key + lane / 4;
#pragma unroll
      for (int i = 0; i < kStepRows / 8; ++i) {
        const int4 rows = seen[i * 4];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          if (key + j * 8 < rows.x || key + j * 8 >= rows.y) s[i * 4 + j * 2] = 0;
          if (key + j * 8 < rows.z || key + j * 8 >= rows.w) s[i * 4 + j * 2 + 1] = 0;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kStepRows / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) p[i][j] = PackBf16(s[i * 8 + j * 2], s[i * 8 + j * 2 + 1]);
    }
    const uint32_t q = SharedAddress(shared.q[ring.at]), d_o = SharedAddress(shared.d_o[ring.at]);
    Pin(p);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kStepRows / 16; ++i) {
      Wgmma(d_v, p[i], AcrossRows(d_o + i * 16 * kChunkRowBytes, kStepChunkBytes), true);
    }
    WgmmaCommit();
    WgmmaWait<1>();
    Pin(d_p);
#pragma unroll
    for (int i = 0; i < kStepRows / 8; ++i) {
      const float4 rows = statistics[i * 4];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int at = i * 4 + j * 2;
        d_s[i / 2][i % 2 * 2 + j] = PackBf16(s[at] * (d_p[at] - rows.y), s[at + 1] * (d_p[at + 1] - rows.w));
      }
    }
    Pin(d_s);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kStepRows / 16; ++i) {
      Wgmma(d_k, d_s[i], AcrossRows(q + i * 16 * kChunkRowBytes, kStepChunkBytes), true);
    }
    WgmmaCommit();
  };
  const auto release_step = [&] {
    Pin(d_v);
    Pin(d_k);
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
    Ring<kStepStages> next = ring;
    next.Next();
    multiply_queries(next);
    WgmmaWait<1>();
    release_step();
    WgmmaWait<0>();
    Pin(s);
  }
  take_step();
  WgmmaWait<0>();
  Pin(d_v);
  Pin(d_k);

  const RowFinder finder(params.table, params.page_rows, item.keys.begin, kTileKeys);
  float* const partial = work.partial + item.partial * kTileKeys * (KW + VW);
  const auto write = [&]<int W>(const float(&sum)[W / 2], float* d_x, float factor, int offset) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int row = warp_key + lane / 4 + j * 8;
      const int64_t place = alone && item.keys.begin + row < item.keys.end ? finder.at(row) : -1;
#pragma unroll
      for (int i = 0; i < W / 8; ++i) {
        const int channel = i * 8 + lane % 4 * 2;
        const float2 value = make_float2(sum[i * 4 + j * 2], sum[i * 4 + j * 2 + 1]);
        if (!alone) {
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

template <int KW, int VW>
__global__ void __launch_bounds__(kThreads, 1)
    RangeBackwardKeysKernel(const __grid_constant__ BackwardRange params, const __grid_constant__ Work work,
                            const __grid_constant__ Maps maps) {
  extern __shared__ unsigned char raw[];
  auto& shared = *reinterpret_cast<Shared<KW, VW>*>(raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  // The last steps, which see most keys, first; beside each other all keys and groups of the same steps.
  const Item item(params, work, blockIdx.x / params.groups, blockIdx.x % params.groups, work.parts - 1 - blockIdx.y);
  const QueryTilesGpu& queries = params.queries;
  if (threadIdx.x < queries.count) {
    const RangeWatchers watchers = WatchersOf(params, {}, item.group, item.keys);
    shared.steps[threadIdx.x] = StepsOf(queries, threadIdx.x, watchers.positions);
  }
  if (threadIdx.x == 0) {
    InitBarrier(&shared.k_full, 1);
    InitBarrier(&shared.v_full, 1);
    for (int i = 0; i < kStepStages; ++i) {
      InitBarrier(&shared.q_full[i], 1);
      InitBarrier(&shared.d_o_full[i], 1);
      InitBarrier(&shared.note_full[i], 32);
      InitBarrier(&shared.empty[i], 2 * kWarpgroup / 32);
    }
    PublishBarriers();
  }
  // Rows of a step that no query fills stay zeros.
  if (queries.tile * params.group_heads() < kStepRows) {
    const auto clear = [](auto& stages) {
      auto* const pieces = reinterpret_cast<uint4*>(stages);
      for (int i = threadIdx.x; i < static_cast<int>(sizeof(stages) / sizeof(uint4)); i += kThreads) pieces[i] = {};
    };
    clear(shared.q);
    clear(shared.d_o);
    FenceForAsync();
  }
  __syncthreads();
  const Walk walk(shared.steps, queries.count, item.part, work.period);
  if (walk.count == 0) return;

  if (threadIdx.x < kWarpgroup) {
    GiveRegisters<24>();
    const int warp = threadIdx.x / 32;
    const bool first = threadIdx.x % 32 == 0;
    if (warp == 0) {
      BringKeys<KW>(params, maps.k, params.k, item, shared.k, &shared.k_full);
      if (first) BringSteps<KW>(params, maps.q, item, walk, shared.q, shared.q_full, shared.empty);
    } else if (warp == 1) {
      BringKeys<VW>(params, maps.v, params.v, item, shared.v, &shared.v_full);
      if (first) BringSteps<VW>(params, maps.d_o, item, walk, shared.d_o, shared.d_o_full, shared.empty);
    } else if (warp == 2) {
      BringNotes(params, item, walk, shared);
    }
  } else {
    TakeRegisters<240>();
    int all_steps = 0;
    for (int i = 0; i < queries.count; ++i) all_steps += shared.steps[i].end - shared.steps[i].begin;
    Differentiate(params, work, item, walk, walk.count == all_steps, shared,
                  static_cast<int>(threadIdx.x) / kWarpgroup - 1);
  }
}

// Adds the parts of a key tile in their order, unless one had all of its steps.
template <int KW, int VW>
__global__ void __launch_bounds__(256)
    SumPartsKernel(const __grid_constant__ BackwardRange params, const __grid_constant__ Work work) {
  constexpr int kWidth = KW + VW;
  __shared__ SpanGpu steps[kMaxSegments];
  __shared__ bool written[kMaxParts];
  const QueryTilesGpu& queries = params.queries;
  const Item item(params, work, blockIdx.x, blockIdx.y, 0);
  if (threadIdx.x < queries.count) {
    const RangeWatchers watchers = WatchersOf(params, {}, item.group, item.keys);
    steps[threadIdx.x] = StepsOf(queries, threadIdx.x, watchers.positions);
  }
  __syncthreads();
  for (int part = threadIdx.x; part < work.parts; part += blockDim.x) {
    const Item here(params, work, blockIdx.x, blockIdx.y, part);
    written[part] = Walk(steps, queries.count, here.part, work.period).count > 0;
  }
  __syncthreads();
  int parts = 0;
  for (int part = 0; part < work.parts; ++part) parts += written[part];
  if (parts <= 1) return;

  const RowFinder finder(params.table, params.page_rows, item.keys.begin, kTileKeys);
  for (int i = blockIdx.z * blockDim.x + threadIdx.x; i < kTileKeys * kWidth / 4; i += gridDim.z * blockDim.x) {
    const int row = i / (kWidth / 4), channel = i % (kWidth / 4) * 4;
    const bool of_key = channel < KW;
    float* const d_x = of_key ? params.d_k : params.d_v;
    if (item.keys.begin + row >= item.keys.end || d_x == nullptr) continue;
    const int64_t place = finder.at(row);
    if (place < 0) continue;
    const float4* from = reinterpret_cast<const float4*>(work.partial + item.partial * kTileKeys * kWidth) + i;
    float4 sum = {};
    for (int part = 0; part < work.parts; ++part, from += kTileKeys * kWidth / 4) {
      if (!written[part]) continue;
      const float4 here = *from;
      sum = {sum.x + here.x, sum.y + here.y, sum.z + here.z, sum.w + here.w};
    }
    const float factor = of_key ? params.scale : 1;
    auto* const to = reinterpret_cast<float4*>(d_x + (place * params.groups + item.group) * (of_key ? KW : VW) +
                                               (of_key ? channel : channel - KW));
    const float4 old = *to;
    *to = {old.x + factor * sum.x, old.y + factor * sum.y, old.z + factor * sum.z, old.w + factor * sum.w};
  }
}

// Few tiles of keys that many queries see are cut in parts.
Work PlanWork(const BackwardRange& cut) {
  Work work;
  work.tiles = static_cast<int>(CeilDiv(cut.key_rows, kTileKeys));
  const int64_t steps = cut.queries.tiles();
  const int64_t of_tile =
      std::min(steps, CeilDiv(int64_t{cut.sight.window} + int64_t{kTileKeys} * cut.sight.stride - 1, cut.queries.tile));
  const int64_t most = kMaxParts / (int64_t{work.tiles} * cut.groups);
  const int64_t parts =
      std::max<int64_t>(1, std::min(of_tile / kMinSteps, most) > 1 ? std::min(steps / kMinSteps, most) : 1);
  work.steps = static_cast<int>(CeilDiv(steps, parts));
  work.parts = static_cast<int>(CeilDiv(steps, work.steps));
  work.period = static_cast<int>(of_tile);
  return work;
}

BackwardRange CutInSteps(const BackwardRange& params) {
  BackwardRange cut = params;
  cut.queries = Recut(params.queries, kStepRows / params.group_heads());
  return cut;
}

template <int KW, int VW>
void Launch(cudaStream_t stream, const char* operation, const BackwardRange& params, const Work& work) {
  const QueryTilesGpu& queries = params.queries;
  const auto map = [&](const void* x, int width, int segment) {
    const int64_t row = int64_t{queries.row[segment]} * params.heads * width;
    return RowsMap(operation, static_cast<const Bf16*>(x) + row, queries.length[segment], params.heads, width,
                   queries.tile, params.group_heads());
  };
  Maps maps;
  for (int i = 0; i < queries.count; ++i) {
    if (queries.length[i] == 0) continue;
    maps.q[i] = map(params.q, KW, i);
    maps.d_o[i] = map(params.d_o, VW, i);
  }
  maps.k = RowMapsOf(operation, params.k, KW, params);
  maps.v = RowMapsOf(operation, params.v, VW, params);

  constexpr int kBytes = sizeof(Shared<KW, VW>) + 1024;
  auto* const kernel = RangeBackwardKeysKernel<KW, VW>;
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), operation);
  kernel<<<dim3(work.tiles * params.groups, work.parts), kThreads, kBytes, stream>>>(params, work, maps);
  if (work.parts > 1) {
    SumPartsKernel<KW, VW><<<dim3(work.tiles, params.groups, 8), 256, 0, stream>>>(params, work);
  }
}

}  // namespace

int64_t RangeBackwardKeysScratchSm90(const BackwardRange& params) {
  const Work work = PlanWork(CutInSteps(params));
  if (work.parts == 1) return 0;
  return int64_t{work.tiles} * params.groups * work.parts * kTileKeys * (params.key_width + params.value_width) *
         static_cast<int64_t>(sizeof(float));
}

void RangeBackwardKeysSm90(cudaStream_t stream, const char* operation, const BackwardRange& params,
                           unsigned char* scratch) {
  const BackwardRange cut = CutInSteps(params);
  Work work = PlanWork(cut);
  if (work.parts > 1) work.partial = reinterpret_cast<float*>(scratch);
  if (params.key_width == 64) {
    Launch<64, 64>(stream, operation, cut, work);
  } else {
    Launch<128, 128>(stream, operation, cut, work);
  }
}

}  // namespace longspan
