// Forward of the window and the compressed branch in bf16 on Hopper: each query sees one range of key rows. Overwrites
// o and lse.
//
// A tile is 128 rows, as many consecutive queries of a segment as fit with all heads of one group, against key tiles of
// 128. Blocks stay and take tiles in turn. Two warpgroups have 64 rows each and take turns: one multiplies while the
// other takes exponentials. Warps of a third bring keys, values and queries (range_work.cuh). Bound by the tensor cores
// and the power they draw; dense attention has 81 to 92% of their rate, the window 82% with whole tiles counted
// (README.md).
//
// Key tiles lie at absolute positions and are met last first. One in which a row sees nothing leaves the row's sums as
// they are, bit for bit (RowSoftmax), and a row of a product depends on no other row: so what a query gets depends
// neither on the queries beside it nor on where rows lie.
#include <algorithm>

#include "kernels/attention/sm90/kernels.cuh"
#include "kernels/attention/sm90/range_work.cuh"
#include "kernels/attention/sm90/row_softmax.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 3 * kWarpgroup;

template <int KW, int VW>
__device__ void Attend(const RangeParams& params, const CUtensorMap* o_map, RangeShared<KW, VW>& shared,
                       int warpgroup) {
  const int thread = threadIdx.x % kWarpgroup, warp = thread / 32, lane = thread % 32, column = lane % 4 * 2;
  const int first_row = warpgroup * kWarpgroupRows + warp * 16 + lane / 4;  // the lane's, of a tile; the other is 8 on
  const int group_heads = params.group_heads();
  const int reciprocal = 65536 / group_heads + 1;  // row / group_heads = row * reciprocal >> 16 for rows of a tile
  const float scale_log2 = ScaleLog2(params.scale);

  // The warpgroups take turns to issue products, 0 first.
  const auto await_turn = [&] { SyncNamed(1 + warpgroup, 2 * kWarpgroup); };
  const auto pass_turn = [&] { ArriveNamed(2 - warpgroup, 2 * kWarpgroup); };
  if (warpgroup == 1) pass_turn();

  // Queries whose place o is leaving from are released once it has left.
  int leaving = -1;
  const auto release_queries = [&] {
    if (thread != 0 || leaving < 0) return;
    WaitForStoresRead<0>();
    Arrive(&shared.q_empty[leaving]);
    leaving = -1;
  };

  float s[kTileKeys / 2], o[VW / 2];
  uint32_t p[kTileKeys / 16][4];
  Ring<RangeShared<KW, VW>::kQueryStages> q_ring;
  Ring<RangeShared<KW, VW>::kStages> k_ring, v_ring;
  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x, q_ring.Next()) {
    WaitBarrier(&shared.q_full[q_ring.at], q_ring.parity);
    const TileHead head = shared.head[q_ring.at];
    const uint32_t q = SharedAddress(shared.q[q_ring.at]) + warpgroup * kWarpgroupRows * kChunkRowBytes;
    SpanGpu seen[2];  // from the lane's first column on
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const SpanGpu span = shared.seen[q_ring.at][min(first_row + i * 8, head.rows - 1) * reciprocal >> 16];
      seen[i] = {span.begin - column, span.end - column};
    }
    // Both ends of a span never fall as rows ascend: the keys that all rows of the warp see.
    const int all_begin = __shfl_sync(~0u, seen[1].begin + column, 31),
              all_end = __shfl_sync(~0u, seen[0].end + column, 0);

    const auto multiply_keys = [&] {
      const uint32_t k = SharedAddress(shared.k[k_ring.at]);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < KW / 16; ++i) {
        const uint32_t at = i % 4 * 32;
        Wgmma(s, AlongRows(q + i / 4 * kQueryChunkBytes + at), AlongRows(k + i / 4 * kKeyChunkBytes + at), i > 0);
      }
      WgmmaCommit();
    };
    const auto multiply_values = [&](bool add) {
      const uint32_t v = SharedAddress(shared.v[v_ring.at]);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < kTileKeys / 16; ++i) {
        Wgmma(o, p[i], AcrossRows(v + i * 16 * kChunkRowBytes, kKeyChunkBytes), add || i > 0);
      }
      WgmmaCommit();
    };
    const auto release_keys = [&] {
      if (thread == 0) Arrive(&shared.k_empty[k_ring.at]);
      k_ring.Next();
    };
    const auto release_values = [&] {
      if (thread == 0) Arrive(&shared.v_empty[v_ring.at]);
      v_ring.Next();
    };
    RowSoftmax softmax;
    float shrink[2];
    const auto take_scores = [&](int tile) {
      const int first = tile * kTileKeys;
      if (first < all_begin) MaskBefore(s, seen[0].begin - first, seen[1].begin - first);
      if (first + kTileKeys > all_end) MaskFrom(s, seen[0].end - first, seen[1].end - first);
      softmax.Take(s, scale_log2, shrink);
    };
    const auto pack_weights = [&] {
#pragma unroll
      for (int i = 0; i < kTileKeys / 16; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) p[i][j] = PackBf16(s[i * 8 + j * 2], s[i * 8 + j * 2 + 1]);
      }
    };

    if (head.first_tile < head.end_tile) {
      WaitBarrier(&shared.k_full[k_ring.at], k_ring.parity);
      await_turn();
      multiply_keys();
      pass_turn();
      WgmmaWait<0>();
      Pin(s);
      release_keys();
      take_scores(head.end_tile - 1);
      pack_weights();
      release_queries();
      // The next tile's scores are under way with this one's weights times values.
      for (int tile = head.end_tile - 2; tile >= head.first_tile; --tile) {
        WaitBarrier(&shared.k_full[k_ring.at], k_ring.parity);
        await_turn();
        Pin(p);
        multiply_keys();
        WaitBarrier(&shared.v_full[v_ring.at], v_ring.parity);
        multiply_values(tile < head.end_tile - 2);
        pass_turn();
        WgmmaWait<1>();
        Pin(s);
        release_keys();
        take_scores(tile);
        WaitAfter(softmax.sum[0] + softmax.sum[1]);
        WgmmaWait<0>();
        Pin(o);
        release_values();
        if (__any_sync(~0u, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
          for (int i = 0; i < VW / 2; ++i) o[i] *= shrink[i / 2 % 2];
        }
        pack_weights();
      }
      WaitBarrier(&shared.v_full[v_ring.at], v_ring.parity);
      Pin(p);
      multiply_values(head.first_tile < head.end_tile - 1);
      WgmmaWait<0>();
      Pin(o);
      release_values();
    } else {
#pragma unroll
      for (int i = 0; i < VW / 2; ++i) o[i] = 0;
      release_queries();
    }

    // o goes to where the warpgroup's queries were, once they have been used, and leaves from there: a whole tile's by
    // the copy engine.
    softmax.Finish();
    const float factor[2] = {softmax.Factor(0), softmax.Factor(1)};
    // Of [T,H].
    const auto out_row = [&](int r) {
      const int query = r * reciprocal >> 16;
      return head.out_row + static_cast<int64_t>(query) * params.heads + (r - query * group_heads);
    };
    SyncNamed(3 + warpgroup, kWarpgroup);
#pragma unroll
    for (int i = 0; i < VW / 16; ++i) {
      const int piece = i * 2 + lane / 16;
      const uint32_t pairs[4] = {PackBf16(o[i * 8] * factor[0], o[i * 8 + 1] * factor[0]),
                                 PackBf16(o[i * 8 + 2] * factor[1], o[i * 8 + 3] * factor[1]),
                                 PackBf16(o[i * 8 + 4] * factor[0], o[i * 8 + 5] * factor[0]),
                                 PackBf16(o[i * 8 + 6] * factor[1], o[i * 8 + 7] * factor[1])};
      StoreMatrices(q + piece / 8 * kQueryChunkBytes + Swizzled(warp * 16 + lane % 16, piece % 8), pairs);
    }
    FenceForAsync();
    SyncNamed(3 + warpgroup, kWarpgroup);
    if (head.rows == kTileRows && kWarpgroupRows % group_heads == 0) {
      if (thread == 0) {
#pragma unroll
        for (int chunk = 0; chunk < VW / kChunk; ++chunk) {
          StoreBox(o_map, q + chunk * kQueryChunkBytes, chunk * kChunk, head.first_head,
                   head.first_row + warpgroup * kWarpgroupRows / group_heads);
        }
        CommitStores();
        leaving = q_ring.at;
      }
    } else {
      constexpr int kPieces = VW / 8;
      const int piece = thread % kPieces;
      for (int i = thread / kPieces; i < kWarpgroupRows; i += kWarpgroup / kPieces) {
        const int r = warpgroup * kWarpgroupRows + i;
        if (r >= head.rows) break;
        *reinterpret_cast<uint4*>(static_cast<Bf16*>(params.o) + out_row(r) * VW + piece * 8) =
            LoadShared(q + piece / 8 * kQueryChunkBytes + Swizzled(i, piece % 8));
      }
      SyncNamed(3 + warpgroup, kWarpgroup);
      if (thread == 0) Arrive(&shared.q_empty[q_ring.at]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first_row + i * 8;
      if (lane % 4 != 0 || row >= head.rows) continue;
      params.lse[out_row(row)] = softmax.LogSumExp(i);
    }
    if (RangeShared<KW, VW>::kQueryStages == 1) release_queries();
  }
  if (thread == 0) WaitForStores<0>();
  if (warpgroup == 0) await_turn();  // the last that was passed
}

template <int KW, int VW>
__global__ void __launch_bounds__(kThreads, 1)
    RangeForwardKernel(const __grid_constant__ RangeParams params, const __grid_constant__ RangeMaps maps) {
  extern __shared__ unsigned char raw[];
  auto& shared = *reinterpret_cast<RangeShared<KW, VW>*>(raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  if (threadIdx.x == 0) {
    for (int i = 0; i < RangeShared<KW, VW>::kQueryStages; ++i) {
      InitBarrier(&shared.q_full[i], 32);
      InitBarrier(&shared.q_empty[i], 2);
    }
    for (int i = 0; i < RangeShared<KW, VW>::kStages; ++i) {
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
    const int warp = threadIdx.x / 32;
    const auto find = [&](const RangeItem& item, int first, int count) {
      return FindRows(params, item.present, first, count);
    };
    if (warp == 0) BringRows<KW>(params, maps.k, params.k, shared.k, shared.k_full, shared.k_empty, find);
    if (warp == 1) BringRows<VW>(params, maps.v, params.v, shared.v, shared.v_full, shared.v_empty, find);
    if (warp == 2) BringQueries(params, &maps.q, shared);
  } else {
    TakeRegisters<MultiplyingRegisters(KW)>();
    Attend(params, &maps.o, shared, static_cast<int>(threadIdx.x) / kWarpgroup - 1);
  }
}

template <int KW, int VW>
void Launch(cudaStream_t stream, const char* operation, const RangeParams& params) {
  const QueryTilesGpu& queries = params.queries;
  const int heads = params.heads, group_heads = params.group_heads(), rows = QueryRows(queries);
  const RangeMaps maps = {
      .q = RowsMap(operation, params.q, rows, heads, KW, queries.tile, group_heads),
      .o = RowsMap(operation, params.o, rows, heads, VW, std::max(1, kWarpgroupRows / group_heads), group_heads),
      .k = RowMapsOf(operation, params.k, KW, params),
      .v = RowMapsOf(operation, params.v, VW, params),
  };

  constexpr int kBytes = sizeof(RangeShared<KW, VW>) + 1024;
  auto* const kernel = RangeForwardKernel<KW, VW>;
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), operation);
  const int blocks =
      ResidentBlocks(operation, static_cast<int64_t>(queries.tiles()) * params.groups, params.left_processors);
  kernel<<<blocks, kThreads, kBytes, stream>>>(params, maps);
}

}  // namespace

bool RangeForwardServedSm90(const RangeParams& params) {
  const auto widths = [&](int k, int v) { return params.key_width == k && params.value_width == v; };
  return params.dtype == DType::kBf16 && (widths(64, 64) || widths(128, 128) || widths(192, 128)) &&
         params.group_heads() <= kTileRows && params.scale >= 0 && AlignedForCopies(params.q) &&
         AlignedForCopies(params.k) && AlignedForCopies(params.v) && AlignedForCopies(params.o);
}

void RangeForwardSm90(cudaStream_t stream, const char* operation, const RangeParams& params) {
  RangeParams cut = params;
  cut.queries = Recut(params.queries, kTileRows / params.group_heads());
  if (params.key_width == 64) {
    Launch<64, 64>(stream, operation, cut);
  } else if (params.key_width == 128) {
    Launch<128, 128>(stream, operation, cut);
  } else {
    Launch<192, 128>(stream, operation, cut);
  }
}

}  // namespace longspan
