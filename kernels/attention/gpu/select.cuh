// The kernel of selection: writes `selected` (and `scores`).
//
// A block takes 8 neighbouring queries of one group and walks over the compressed rows they see in steps of 256 rows at
// absolute positions, 32 rows a warp. The product is transposed, rows x queries, one head after another: a warp keeps
// its rows in registers, so that the sum of probabilities over the group's heads stays in a thread's registers and has
// one order. The sums of a step go to a ring in shared memory, from which one warp a query draws the scores of the
// selection blocks that are complete and keeps the best of them in registers. No score reaches device memory unless it
// is asked for, and a query's scores depend on absolute positions alone. Bound by the tensor cores (bf16,
// sm80/select_scores).
#pragma once

#include "kernels/attention/gpu/contest.cuh"

namespace longspan {

// The queries of a block, in shared memory.
struct TileSight {
  SpanGpu seen[kSelectQueries];  // empty for queries that are not there
};

// What a step of one warp needs to know.
struct StepArgs {
  const SelectParams& params;
  const QueryTileGpu& tile;
  const TileSight& sight;
  SpanGpu seen;  // by any query of the tile
  int group;
  int row;      // the warp's first of kWarpRows
  float* ring;  // [kSelectQueries, kRingStride], where that row goes
};

// Scores is how a warp sums the probabilities of its rows, over the heads of a group:
//   int64_t SharedBytes(int group_heads)          dynamic shared memory that it wants
//   void Prepare(params, tile, group, shared)     by the whole block, once
//   void Step(args, shared)                       writes kWarpRows rows of the ring
template <typename Scores>
__global__ __launch_bounds__(kSelectThreads, 2) void SelectKernel(const __grid_constant__ SelectParams p) {
  extern __shared__ uint4 shared[];
  __shared__ float ring[kSelectQueries * kRingStride];
  __shared__ float forced_scores[kSelectQueries * kMaxSelect];
  __shared__ TileSight sight;

  // The last queries have the most to do: they go first.
  const int group = blockIdx.x % p.groups, warp = threadIdx.x / 32;
  const QueryTileGpu tile =
      FindQueries(p.queries, p.queries.first_tile[p.queries.count] - 1 - static_cast<int>(blockIdx.x / p.groups));
  const int last = tile.position + tile.count - 1;
  const bool active = warp < tile.count;  // does this warp hold a contest
  Contest contest(p, active ? tile.position + warp : last);

  if (threadIdx.x < kSelectQueries) {
    const int query = threadIdx.x;
    sight.seen[query] = query < tile.count ? p.sight.Seen(tile.position + query) : SpanGpu{0, 0};
  }
  // While all visible blocks fit, nobody asks for their order.
  const bool needed = __syncthreads_or(p.scores != nullptr || contest.visible() > p.select) != 0;
  const SpanGpu seen = {p.sight.Seen(tile.position).begin, needed ? p.sight.Seen(last).end : 0};
  if (needed) {
    Scores::Prepare(p, tile, group, shared);
    __syncthreads();
  }

  const int first_row = p.sight.DocStart(tile.position) / p.select_block * p.block_cells;
  const int end_row = (last / p.select_block + 1) * p.block_cells + p.sight.lead;
  for (int step = first_row / kSelectRows; step * kSelectRows < end_row; ++step) {
    const int row = step * kSelectRows + warp * kWarpRows;
    float* const to = ring + step % 3 * kSelectRows + warp * kWarpRows;
    if (row < seen.end && row + kWarpRows > seen.begin) {
      Scores::Step({p, tile, sight, seen, group, row, to}, shared);
    } else {
      for (int query = 0; query < kSelectQueries; ++query) to[query * kRingStride + threadIdx.x % 32] = 0;
    }
    __syncthreads();
    if (active) contest.Advance((step + 1) * kSelectRows, ring + warp * kRingStride, forced_scores + warp * kMaxSelect);
  }
  if (!active) return;
  const int64_t place = (int64_t{tile.row + warp} * p.groups + group) * p.select;
  contest.Finish(forced_scores + warp * kMaxSelect, p.selected + place,
                 p.scores == nullptr ? nullptr : p.scores + place);
}

template <typename Scores>
void LaunchSelect(cudaStream_t stream, const char* operation, const SelectParams& params) {
  const int64_t bytes = Scores::SharedBytes(params.group_heads());
  CudaCheck(
      cudaFuncSetAttribute(SelectKernel<Scores>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
      operation);
  SelectKernel<Scores><<<params.queries.tiles() * params.groups, kSelectThreads, bytes, stream>>>(params);
}

}  // namespace longspan
