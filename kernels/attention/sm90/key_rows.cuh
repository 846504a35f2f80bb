// Rows of keys and values on their way to shared memory: where they lie, and what the copy engine cannot bring.
#pragma once

#include "kernels/attention/gpu/sight.cuh"
#include "kernels/base/ptx_sm90.cuh"

namespace longspan {

constexpr int kWarpgroup = 128;  // threads
constexpr int kChunk = 64;       // channels

// Registers a thread of one warpgroup that brings and two that multiply: what a block of three was launched with, 168
// each and not a register more, or it waits for ever. Products of narrow rows leave some to those that bring.
constexpr int BringingRegisters(int width) { return width == 64 ? 40 : 24; }
constexpr int MultiplyingRegisters(int width) { return (3 * 168 - BringingRegisters(width)) / 2; }

// The buffer row of key row `first` when one page holds the `count` rows from it on; else -1.
template <typename Sight>
__device__ inline int RowsInPage(const BranchParams<Sight>& params, int first, int count) {
  const int page = first / params.page_rows, in_page = first - page * params.page_rows;
  return in_page + count > params.page_rows ? -1 : __ldg(params.table + page) * params.page_rows + in_page;
}

// The same when the rows are all present, too.
template <typename Sight>
__device__ inline int FindRows(const BranchParams<Sight>& params, SpanGpu present, int first, int count) {
  return first < present.begin || first + count > present.end ? -1 : RowsInPage(params, first, count);
}

// Rows [first, first+count) of x [R,G,W] one by one to a tile whose chunks are ChunkBytes apart, zeros for those that
// are not found: find(first, count) is the buffer row of rows that may be read and lie one after another, else -1. By a
// warp, which waits until they are there.
template <int W, uint32_t ChunkBytes, typename Sight, typename Find>
__device__ void CopyRows(uint32_t to, const Bf16* x, const BranchParams<Sight>& params, int group, int first, int count,
                         const Find& find) {
  constexpr int kPieces = W / 8, kAtOnce = 16;
  const int lane = threadIdx.x % 32;
  for (int done = 0; done < count; done += kAtOnce) {
    const int row = lane < kAtOnce ? find(first + done + lane, 1) : -1;
#pragma unroll 4
    for (int i = lane; i < kAtOnce * kPieces; i += 32) {
      const int piece = i % kPieces, from = __shfl_sync(~0u, row, i / kPieces);
      CopyAsync16(to + piece / 8 * ChunkBytes + Swizzled(done + i / kPieces, piece % 8),
                  from < 0 ? x : x + (static_cast<int64_t>(from) * params.groups + group) * W + piece * 8, from >= 0);
    }
  }
  CommitCopies();
  WaitForCopies<0>();
  FenceForAsync();
}

}  // namespace longspan
