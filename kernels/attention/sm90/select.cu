// Selection in bf16 on Hopper: overwrites `selected` (and `scores`).
//
// A block stays and takes tiles of 16 neighbouring queries of one group in turn, against tiles of 128 compressed keys.
// Two warpgroups have 8 queries each. Their products are 64 keys x columns, head by head and 8 queries each, so that
// the sum of probabilities over a group's heads stays in a thread, of two keys and two queries, and has one order.
// The next product is under way while this one's exponentials are taken. The sums go to shared memory, where a third
// warpgroup draws scores from them and keeps each query's best (select_contest.cuh); warps of a fourth bring keys and
// queries (select_work.cuh). Products and exponentials take nearly equally long and overlap in part: 73% of the tensor
// cores' rate (README.md).
//
// Key tiles lie at absolute positions, and a sum depends on one key and one query alone: so what a query gets depends
// neither on the queries beside it nor on where rows lie.
#include <algorithm>

#include "kernels/attention/sm90/kernels.cuh"
#include "kernels/attention/sm90/resident.cuh"
#include "kernels/attention/sm90/select_contest.cuh"
#include "kernels/attention/sm90/tensor_map.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 4 * kWarpgroup;

// Of the queries of one of the two warpgroups.
template <int KW, int Heads>
__device__ void SumProbabilities(const SelectParams& params, SelectShared<KW, Heads>& shared, int warpgroup) {
  using Shared = SelectShared<KW, Heads>;
  constexpr int kSums = Shared::kColumns / 2;
  const int warp = threadIdx.x % kWarpgroup / 32, lane = threadIdx.x % 32;
  const int row = warp * 16 + lane / 4, query = lane % 4 * 2;  // the lane's first; another row is 8 on
  const float scale_log2 = params.scale_log2;

  float even[kSums], odd[kSums];
#pragma unroll
  for (int i = 0; i < kSums; ++i) even[i] = odd[i] = 0;
  Ring<Shared::kQueryStages> q_ring;
  Ring<Shared::kKeyStages> k_ring, k_used;
  Ring<Shared::kSumStages> sum_ring;
  const auto arrive = [&](uint64_t* barrier) {
    __syncwarp();
    if (lane == 0) Arrive(barrier);
  };
  for (;; q_ring.Next()) {
    WaitBarrier(&shared.q_full[q_ring.at], q_ring.parity);
    const SpanGpu tiles = shared.tiles[q_ring.at];
    if (tiles.begin == tiles.end) break;
    const uint64_t q = AlongRows(SharedAddress(shared.q[q_ring.at]) + warpgroup * Shared::kQueryBytes);
    float lse[Heads][2];
#pragma unroll
    for (int head = 0; head < Heads; ++head) {
      const float2 two = *reinterpret_cast<const float2*>(&shared.lse[q_ring.at][warpgroup][head][query]);
      lse[head][0] = two.x;
      lse[head][1] = two.y;
    }
    SpanGpu seen[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const SpanGpu span = shared.seen[q_ring.at][warpgroup * 8 + query + i];
      seen[i] = {span.begin - row, span.end - row};
    }

    // The keys that all of the warpgroup's queries see.
    const SpanGpu all = {shared.seen[q_ring.at][warpgroup * 8 + 7].begin, shared.seen[q_ring.at][warpgroup * 8].end};

    const auto multiply = [&](float(&s)[kSums]) {
      const uint64_t k = AlongRows(SharedAddress(shared.k[k_ring.at]));
      WaitBarrier(&shared.k_full[k_ring.at], k_ring.parity);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < KW / 16; ++i) {
        const int chunk = i / 4, at = i % 4 * 32;
        Wgmma(s, k + (chunk * kKeyChunkBytes + at) / 16, q + (chunk * Shared::kQueryChunkBytes + at) / 16, i > 0);
      }
      WgmmaCommit();
      k_ring.Next();
    };
    const auto release_keys = [&] {
      arrive(&shared.k_empty[k_used.at]);
      k_used.Next();
    };
    const auto add_heads = [&](const float(&s)[kSums], float(&sum)[4]) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] = 0;
#pragma unroll
      for (int head = 0; head < Heads; ++head) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i] += Exp2(fmaf(s[head * 4 + i], scale_log2, -lse[head][i % 2]));
      }
      Pin(sum);  // all of s has been read
    };
    // Of both products of a tile.
    const auto hand_on = [&](float(&sum)[2][4], int tile) {
      const int first = tile * kTileKeys;
      const bool whole = first >= all.begin && first + kTileKeys <= all.end;
      WaitBarrier(&shared.sums_empty[warpgroup][sum_ring.at], sum_ring.parity ^ 1);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int at = i / 4 * kProductKeys + i % 4 / 2 * 8;
        const SpanGpu& span = seen[i % 2];
        const bool there = whole || (first + at >= span.begin && first + at < span.end);
        shared.sums[sum_ring.at][warpgroup * 8 + query + i % 2][row + at] = there ? sum[i / 4][i % 4] : 0;
      }
      arrive(&shared.sums_full[warpgroup][sum_ring.at]);
      sum_ring.Next();
    };

    float sum[2][4];
    multiply(even);
    for (int tile = tiles.begin;; ++tile) {
      WgmmaWait<0>();
      Pin(even);
      release_keys();
      multiply(odd);
      add_heads(even, sum[0]);
      WgmmaWait<0>();
      Pin(odd);
      release_keys();
      if (tile + 1 == tiles.end) {
        arrive(&shared.q_empty[q_ring.at]);
        add_heads(odd, sum[1]);
        hand_on(sum, tile);
        break;
      }
      multiply(even);
      add_heads(odd, sum[1]);
      hand_on(sum, tile);
    }
  }
}

struct SelectMaps {
  CUtensorMap q, k;
};

template <int KW, int Heads>
__global__ void __launch_bounds__(kThreads, 1)
    SelectKernel(const __grid_constant__ SelectParams params, const __grid_constant__ SelectMaps maps) {
  using Shared = SelectShared<KW, Heads>;
  extern __shared__ unsigned char raw[];
  auto& shared = *reinterpret_cast<Shared*>(raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  constexpr int kWarps = kWarpgroup / 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shared::kQueryStages; ++i) {
      InitBarrier(&shared.q_full[i], 32);
      InitBarrier(&shared.q_empty[i], 2 * kWarps);
    }
    for (int i = 0; i < Shared::kKeyStages; ++i) {
      InitBarrier(&shared.k_full[i], 1);
      InitBarrier(&shared.k_empty[i], 2 * kWarps);
    }
    for (int i = 0; i < 2 * Shared::kSumStages; ++i) {
      InitBarrier(&shared.sums_full[0][i], kWarps);
      InitBarrier(&shared.sums_empty[0][i], kWarps / 2);
    }
    PublishBarriers();
  }
  __syncthreads();
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);  // known to be the warp's
  if (warpgroup == 0) {
    GiveRegisters<40>();
    const int warp = threadIdx.x / 32;
    if (warp == 0) BringKeys(params, &maps.k, shared);
    if (warp == 1) BringQueries(params, &maps.q, shared);
  } else if (warpgroup == 1) {
    GiveRegisters<72>();
    if (params.select - params.init - params.local > kHalfWarp) {
      HoldContests<kMaxSelect / kHalfWarp, false>(params, shared);
    } else if (params.block_cells == 4 && params.cells == 2) {
      HoldContests<1, true>(params, shared);
    } else {
      HoldContests<1, false>(params, shared);
    }
  } else {
    TakeRegisters<200>();
    SumProbabilities(params, shared, warpgroup - 2);
  }
}

template <int KW, int Heads>
void Launch(cudaStream_t stream, const char* operation, const SelectParams& params) {
  const QueryTilesGpu& queries = params.queries;
  int query_rows = 0;
  for (int i = 0; i < queries.count; ++i) query_rows = std::max(query_rows, queries.row[i] + queries.length[i]);
  const SelectMaps maps = {
      .q = HeadRowsMap(operation, params.q, query_rows, params.heads, KW, 8, Heads),
      .k = RowsMap(operation, params.k, params.key_rows, params.groups, KW, kProductKeys, 1),
  };
  constexpr int kBytes = sizeof(SelectShared<KW, Heads>) + 1024;
  static_assert(kBytes <= 227 << 10);
  auto* const kernel = SelectKernel<KW, Heads>;
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), operation);
  const int blocks =
      ResidentBlocks(operation, static_cast<int64_t>(queries.tiles()) * params.groups, params.left_processors);
  kernel<<<blocks, kThreads, kBytes, stream>>>(params, maps);
}

template <int KW>
void LaunchForHeads(cudaStream_t stream, const char* operation, const SelectParams& params) {
  const int group_heads = params.group_heads();
  if (group_heads == 1) return Launch<KW, 1>(stream, operation, params);
  if (group_heads == 2) return Launch<KW, 2>(stream, operation, params);
  if (group_heads <= 4) return Launch<KW, 4>(stream, operation, params);
  if (group_heads <= 8) return Launch<KW, 8>(stream, operation, params);
  return Launch<KW, 16>(stream, operation, params);
}

}  // namespace

bool SelectServedSm90(const SelectParams& params) {
  const int width = params.key_width;
  return params.dtype == DType::kBf16 && (width == 64 || width == 128 || width == 192) && params.group_heads() <= 16 &&
         params.key_rows <= INT32_MAX && AlignedForCopies(params.q) && AlignedForCopies(params.k);
}

void SelectSm90(cudaStream_t stream, const char* operation, const SelectParams& params) {
  SelectParams cut = params;
  cut.queries = Recut(params.queries, kTileQueries);
  if (params.key_width == 64) {
    LaunchForHeads<64>(stream, operation, cut);
  } else if (params.key_width == 128) {
    LaunchForHeads<128>(stream, operation, cut);
  } else {
    LaunchForHeads<192>(stream, operation, cut);
  }
}

}  // namespace longspan
