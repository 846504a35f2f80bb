// d_q of the window and the compressed branch in bf16 on Hopper: each query sees one range of key rows. Adds to d_q, or
// overwrites it.
//
// Cut as the forward (range_forward): 128 rows against key tiles of 128, two warpgroups with 64 rows each, three
// products a tile,
//   S = q k   dP = d_o v   dS = P (dP - delta)   d_q += dS k
// of which the next tile's S is under way with this one's last. Warps of a third warpgroup bring keys, values, queries
// and what is known of them (range_work.cuh). Each float of d_q is added to once.
#include "kernels/attention/sm90/kernels.cuh"
#include "kernels/attention/sm90/range_backward.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 3 * kWarpgroup;
constexpr int kNotes = 2;  // of this query tile and the next

template <int KW, int VW>
struct Shared {
  static constexpr int kQueryStages = KW == 64 ? 2 : 1, kStages = KeyStages(KW);
  Bf16 q[kQueryStages][kTileRows * KW];
  Bf16 d_o[kQueryStages][kTileRows * VW];
  Bf16 k[kStages][kTileKeys * KW];
  Bf16 v[kStages][kTileKeys * VW];
  SpanGpu seen[kNotes][kTileRows];  // by query
  RowStatistics statistics[kNotes][kTileRows];
  TileHead head[kNotes];
  uint64_t q_full[kQueryStages], q_empty[kQueryStages], d_o_full[kQueryStages], d_o_empty[kQueryStages];
  uint64_t note_full[kNotes], note_empty[kNotes];
  uint64_t k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
};

struct Maps {
  CUtensorMap q, d_o;
  RowMaps k, v;
};

// q and d_o of tiles that see anything, by one thread.
template <int KW, int VW>
__device__ void BringQueries(const BackwardRange& params, const Maps& maps, Shared<KW, VW>& shared) {
  const int rows = params.queries.tile * params.group_heads();
  Ring<Shared<KW, VW>::kQueryStages> ring;
  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x) {
    const RangeItem item = FindItem(params, index);
    if (item.first_tile >= item.end_tile) continue;
    // A whole tile's, whatever counts: rows after the segment's are the next one's, or zeros after the last.
    const auto copy = [&](const CUtensorMap* map, const Bf16* to, int width, uint64_t* full, uint64_t* empty) {
      WaitBarrier(empty, ring.parity ^ 1);
      ArriveAndExpect(full, rows * width * sizeof(Bf16));
      for (int chunk = 0; chunk < width / kChunk; ++chunk) {
        CopyBox(SharedAddress(to) + chunk * kQueryChunkBytes, map, chunk * kChunk, item.group * params.group_heads(),
                item.queries.row, full);
      }
    };
    copy(&maps.q, shared.q[ring.at], KW, &shared.q_full[ring.at], &shared.q_empty[ring.at]);
    copy(&maps.d_o, shared.d_o[ring.at], VW, &shared.d_o_full[ring.at], &shared.d_o_empty[ring.at]);
    ring.Next();
  }
}

template <int KW, int VW>
__device__ void BringNotes(const BackwardRange& params, Shared<KW, VW>& shared) {
  const int lane = threadIdx.x % 32, group_heads = params.group_heads();
  Ring<kNotes> ring;
  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x, ring.Next()) {
    const RangeItem item = FindItem(params, index);
    const TileHead head = HeadOf(params, item);
    WaitBarrier(&shared.note_empty[ring.at], ring.parity ^ 1);
    for (int i = lane; i < item.queries.count; i += 32) {
      shared.seen[ring.at][i] = params.sight.Seen(item.queries.position + i);
    }
    for (int i = lane; i < kTileRows; i += 32) {
      const int query = i / group_heads;
      shared.statistics[ring.at][i] =
          i < head.rows
              ? StatisticsOf(params, head.out_row + static_cast<int64_t>(query) * params.heads + i % group_heads)
              : RowStatistics();
    }
    if (lane == 0) shared.head[ring.at] = head;
    Arrive(&shared.note_full[ring.at]);
  }
}

template <int KW, int VW>
__device__ void Differentiate(const BackwardRange& params, Shared<KW, VW>& shared, int warpgroup) {
  const int thread = threadIdx.x % kWarpgroup, warp = thread / 32, lane = thread % 32, column = lane % 4 * 2;
  const int first_row = warpgroup * kWarpgroupRows + warp * 16 + lane / 4;  // the lane's, of a tile; the other is 8 on
  const int group_heads = params.group_heads();
  const float scale_log2 = ScaleLog2(params.scale);
  const uint32_t rows_at = warpgroup * kWarpgroupRows * kChunkRowBytes;

  float s[kTileKeys / 2], d_p[kTileKeys / 2], d_q[KW / 2];
  uint32_t d_s[kTileKeys / 16][4];
  Ring<Shared<KW, VW>::kQueryStages> q_ring;
  Ring<kNotes> note_ring;
  Ring<Shared<KW, VW>::kStages> k_ring, v_ring;
  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x) {
    WaitBarrier(&shared.note_full[note_ring.at], note_ring.parity);
    const TileHead head = shared.head[note_ring.at];
    SpanGpu seen[2];  // from the lane's first column on
    RowStatistics statistics[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const SpanGpu span = shared.seen[note_ring.at][min(first_row + i * 8, head.rows - 1) / group_heads];
      seen[i] = {span.begin - column, span.end - column};
      statistics[i] = shared.statistics[note_ring.at][first_row + i * 8];
    }
    __syncwarp();
    if (lane == 0) Arrive(&shared.note_empty[note_ring.at]);
    note_ring.Next();
    const auto write = [&](const auto& sum) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = first_row + i * 8, query = row / group_heads;
        if (row >= head.rows) continue;
        float* const to =
            params.d_q +
            (head.out_row + static_cast<int64_t>(query) * params.heads + (row - query * group_heads)) * KW + column;
#pragma unroll
        for (int j = 0; j < KW / 8; ++j) {
          const float2 x = {params.scale * sum(j * 4 + i * 2), params.scale * sum(j * 4 + i * 2 + 1)};
          if (params.overwrite_q) {
            *reinterpret_cast<float2*>(to + j * 8) = x;
          } else {
            AddToMemory(to + j * 8, x.x, x.y);
          }
        }
      }
    };
    if (head.first_tile >= head.end_tile) {
      if (params.overwrite_q) write([](int) { return 0.0F; });
      continue;
    }
    // Both ends of a span never fall as rows ascend: the keys that all rows of the warp see.
    const int all_begin = __shfl_sync(~0u, seen[1].begin + column, 31),
              all_end = __shfl_sync(~0u, seen[0].end + column, 0);

    const uint32_t q = SharedAddress(shared.q[q_ring.at]) + rows_at,
                   d_o = SharedAddress(shared.d_o[q_ring.at]) + rows_at;
    const auto multiply_keys = [&](int stage) {
      const uint32_t k = SharedAddress(shared.k[stage]);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < KW / 16; ++i) {
        const uint32_t at = i % 4 * 32;
        Wgmma(s, AlongRows(q + i / 4 * kQueryChunkBytes + at), AlongRows(k + i / 4 * kKeyChunkBytes + at), i > 0);
      }
      WgmmaCommit();
    };
    const auto multiply_values = [&] {
      WaitBarrier(&shared.v_full[v_ring.at], v_ring.parity);
      const uint32_t v = SharedAddress(shared.v[v_ring.at]);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < VW / 16; ++i) {
        const uint32_t at = i % 4 * 32;
        Wgmma(d_p, AlongRows(d_o + i / 4 * kQueryChunkBytes + at), AlongRows(v + i / 4 * kKeyChunkBytes + at), i > 0);
      }
      WgmmaCommit();
    };
    // From S to dS. Nothing is under way before and after: the compiler serializes products that a loop's end divides.
    const auto take_scores = [&](int tile, bool last) {
      multiply_values();
      const int first = tile * kTileKeys;
      if (first < all_begin) MaskBefore(s, seen[0].begin - first, seen[1].begin - first);
      if (first + kTileKeys > all_end) MaskFrom(s, seen[0].end - first, seen[1].end - first);
#pragma unroll
      for (int i = 0; i < kTileKeys / 2; ++i) {
        s[i] = Exp2(fmaf(s[i], scale_log2, -statistics[i / 2 % 2].lse_log2));
      }
      // It passes at once, and keeps the compiler from putting the exponentials after the wait for the products.
      WaitBarrier(&shared.v_full[v_ring.at], v_ring.parity);
      WgmmaWait<0>();
      Pin(d_p);
      if (thread == 0) {
        Arrive(&shared.v_empty[v_ring.at]);
        if (last) Arrive(&shared.d_o_empty[q_ring.at]);
      }
      v_ring.Next();
      const auto d_s_at = [&](int i) { return s[i] * (d_p[i] - statistics[i / 2 % 2].delta); };
#pragma unroll
      for (int i = 0; i < kTileKeys / 16; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) d_s[i][j] = PackBf16(d_s_at(i * 8 + j * 2), d_s_at(i * 8 + j * 2 + 1));
      }
    };
    const auto multiply_d_s = [&](bool add) {
      const uint32_t k = SharedAddress(shared.k[k_ring.at]);
      Pin(d_s);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < kTileKeys / 16; ++i) {
        Wgmma(d_q, d_s[i], AcrossRows(k + i * 16 * kChunkRowBytes, kKeyChunkBytes), add || i > 0);
      }
      WgmmaCommit();
    };
    const auto release_keys = [&] {
      Pin(d_q);
      if (thread == 0) Arrive(&shared.k_empty[k_ring.at]);
      k_ring.Next();
    };

    WaitBarrier(&shared.q_full[q_ring.at], q_ring.parity);
    WaitBarrier(&shared.k_full[k_ring.at], k_ring.parity);
    multiply_keys(k_ring.at);
    WaitBarrier(&shared.d_o_full[q_ring.at], q_ring.parity);
    WgmmaWait<0>();
    Pin(s);
    for (int tile = head.end_tile - 1; tile > head.first_tile; --tile) {
      take_scores(tile, false);
      multiply_d_s(tile < head.end_tile - 1);
      auto next = k_ring;
      next.Next();
      WaitBarrier(&shared.k_full[next.at], next.parity);
      multiply_keys(next.at);
      WgmmaWait<1>();
      release_keys();
      WgmmaWait<0>();
      Pin(s);
    }
    if (thread == 0) Arrive(&shared.q_empty[q_ring.at]);
    take_scores(head.first_tile, true);
    q_ring.Next();
    multiply_d_s(head.first_tile < head.end_tile - 1);
    WgmmaWait<0>();
    release_keys();

    write([&](int i) { return d_q[i]; });
  }
}

template <int KW, int VW>
__global__ void __launch_bounds__(kThreads, 1)
    RangeBackwardQKernel(const __grid_constant__ BackwardRange params, const __grid_constant__ Maps maps) {
  extern __shared__ unsigned char raw[];
  auto& shared = *reinterpret_cast<Shared<KW, VW>*>(raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shared<KW, VW>::kQueryStages; ++i) {
      InitBarrier(&shared.q_full[i], 1);
      InitBarrier(&shared.d_o_full[i], 1);
      InitBarrier(&shared.q_empty[i], 2);
      InitBarrier(&shared.d_o_empty[i], 2);
    }
    for (int i = 0; i < kNotes; ++i) {
      InitBarrier(&shared.note_full[i], 32);
      InitBarrier(&shared.note_empty[i], 2 * kWarpgroup / 32);
    }
    for (int i = 0; i < Shared<KW, VW>::kStages; ++i) {
      InitBarrier(&shared.k_full[i], 1);
      InitBarrier(&shared.v_full[i], 1);
      InitBarrier(&shared.k_empty[i], 2);
      InitBarrier(&shared.v_empty[i], 2);
    }
    PublishBarriers();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroup) {
    GiveRegisters<BringingRegisters(KW)>();
    const auto find = [&](const RangeItem& item, int first, int count) {
      const int row = FindRows(params, item.present, first, count);
      return row >= 0 && InOneDocument(params.sight, first, count) ? row : -1;
    };
    const int warp = threadIdx.x / 32;
    if (warp == 0) {
      BringRows<KW>(params, maps.k, params.k, shared.k, shared.k_full, shared.k_empty, find);
    } else if (warp == 1) {
      BringRows<VW>(params, maps.v, params.v, shared.v, shared.v_full, shared.v_empty, find);
    } else if (warp == 2) {
      BringNotes(params, shared);
    } else {
      if (threadIdx.x % 32 == 0) BringQueries(params, maps, shared);
    }
  } else {
    TakeRegisters<MultiplyingRegisters(KW)>();
    Differentiate(params, shared, static_cast<int>(threadIdx.x) / kWarpgroup - 1);
  }
}

template <int KW, int VW>
void Launch(cudaStream_t stream, const char* operation, const BackwardRange& params) {
  const QueryTilesGpu& queries = params.queries;
  const int heads = params.heads, rows = QueryRows(queries);
  const Maps maps = {
      .q = RowsMap(operation, params.q, rows, heads, KW, queries.tile, params.group_heads()),
      .d_o = RowsMap(operation, params.d_o, rows, heads, VW, queries.tile, params.group_heads()),
      .k = RowMapsOf(operation, params.k, KW, params),
      .v = RowMapsOf(operation, params.v, VW, params),
  };
  constexpr int kBytes = sizeof(Shared<KW, VW>) + 1024;
  auto* const kernel = RangeBackwardQKernel<KW, VW>;
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), operation);
  const int blocks =
      ResidentBlocks(operation, static_cast<int64_t>(queries.tiles()) * params.groups, params.left_processors);
  kernel<<<blocks, kThreads, kBytes, stream>>>(params, maps);
}

}  // namespace

void RangeBackwardQSm90(cudaStream_t stream, const char* operation, const BackwardRange& params) {
  BackwardRange cut = params;
  cut.queries = Recut(params.queries, kTileRows / params.group_heads());
  if (params.key_width == 64) {
    Launch<64, 64>(stream, operation, cut);
  } else {
    Launch<128, 128>(stream, operation, cut);
  }
}

}  // namespace longspan
