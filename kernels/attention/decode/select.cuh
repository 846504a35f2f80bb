// The choice of blocks of a query and group, by a block of kSplitThreads threads. Sums of the splits' weights become
// the scores of blocks, sums over the group's heads of probabilities; the smallest score that is chosen is found two
// bits at a time.
//
// The rule is training's (gpu/contest.cuh). Scores differ from training's in the last bits, as here a split's weights
// are summed before they meet the softmax's sum. Bound by latency.
#pragma once

#include "kernels/attention/decode/params.cuh"

namespace longspan {

// In shared memory: statistics of the splits [splits, room], then ranks of blocks.
inline int64_t SelectBytes(const AttendParams& p) {
  return int64_t{p.compressed_splits} * p.head_room() * int64_t{sizeof(float2)} +
         int64_t{p.sum_blocks} * int64_t{sizeof(unsigned)};
}

// Higher is better; NaN is last.
__device__ inline unsigned RankOf(float score) {
  if (!(score >= 0)) return 0;
  return (score < 1.17549435e-38f ? 0u : __float_as_uint(score)) + 1;  // denormals are 0, as exponentials' are
}

// The largest number that at least `wanted` (1 or more) of the ranks reach.
__device__ inline unsigned RankReached(const unsigned* ranks, int count, int wanted) {
  constexpr int kWarps = kSplitThreads / kWarp;
  __shared__ int counts[2][3][kWarps];
  unsigned reached = 0;
  for (int shift = 30; shift >= 0; shift -= 2) {
    int own[3] = {};
    for (int i = threadIdx.x; i < count; i += kSplitThreads) {
      const unsigned rank = ranks[i];
#pragma unroll
      for (unsigned digit = 1; digit <= 3; ++digit) own[digit - 1] += rank >= (reached | digit << shift);
    }
    auto& all = counts[shift / 2 % 2];
#pragma unroll
    for (int digit = 0; digit < 3; ++digit) {
      const int sum = __reduce_add_sync(kAllLanes, own[digit]);
      if (threadIdx.x % kWarp == 0) all[digit][threadIdx.x / kWarp] = sum;
    }
    __syncthreads();
    unsigned best = 0;
#pragma unroll
    for (unsigned digit = 1; digit <= 3; ++digit) {
      int sum = 0;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) sum += all[digit - 1][warp];
      if (sum >= wanted) best = digit;
    }
    reached |= best << shift;
  }
  return reached;
}

// Sums of x over the threads before this one, and over all.
__device__ inline int2 SumBefore(int x, int* all) {
  constexpr int kWarps = kSplitThreads / kWarp;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int up_to = x;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int other = __shfl_up_sync(kAllLanes, up_to, step);
    if (lane >= step) up_to += other;
  }
  if (lane == kWarp - 1) all[warp] = up_to;
  __syncthreads();
  int2 sums = make_int2(up_to - x, 0);
#pragma unroll
  for (int i = 0; i < kWarps; ++i) {
    if (i < warp) sums.x += all[i];
    sums.y += all[i];
  }
  return sums;
}

__device__ inline void SelectBlocks(const AttendParams& p, int number, int group, int position, uint4* shared) {
  int32_t* const selected = p.selected + (static_cast<int64_t>(p.first_query + number) * p.groups + group) * p.select;
  const int own = position / p.select_block, tid = threadIdx.x;
  if (own + 1 <= p.select) {
    for (int i = tid; i < p.select; i += kSplitThreads) selected[i] = i <= own ? i : -1;
    return;
  }
  const int local_begin = own + 1 - p.local;  // all between it and the first blocks is contested
  const int capacity = p.select - p.init - p.local;
  for (int i = tid; i < p.init; i += kSplitThreads) selected[i] = i;
  for (int i = tid; i < p.local; i += kSplitThreads) selected[p.select - p.local + i] = local_begin + i;
  if (capacity == 0) return;

  // A split's weights times its factor are probabilities.
  const int splits = p.CompressedSplits(position), room = p.head_room(), group_heads = p.group_heads();
  auto* const stats = reinterpret_cast<float2*>(shared);
  auto* const ranks = reinterpret_cast<unsigned*>(stats + p.compressed_splits * room);
  for (int i = tid; i < splits * room; i += kSplitThreads) {
    const int split = i / room, head = i % room;
    const int64_t row = static_cast<int64_t>(number) * p.heads + group * group_heads + head;
    stats[i] = head < group_heads ? p.stats[row * p.splits() + split] : make_float2(0, 0);
  }
  __syncthreads();
  for (int head = tid; head < group_heads; head += kSplitThreads) {
    float largest = -CUDART_INF_F, sum = 0;
    for (int s = 0; s < splits; ++s) largest = fmaxf(largest, stats[s * room + head].x);
    for (int s = 0; s < splits; ++s) sum += stats[s * room + head].y * Exp2(stats[s * room + head].x - largest);
    for (int s = 0; s < splits; ++s) {
      float2& of = stats[s * room + head];
      of.y = Exp2(of.x - largest) / sum;
    }
  }
  __syncthreads();

  const int64_t row = static_cast<int64_t>(number) * p.groups + group;
  const int rows_end = splits > 0 ? p.RowsEnd(position) : 0, split_blocks = p.split_rows / p.block_cells;
  const int contested = local_begin - p.init;
#pragma unroll 2
  for (int i = tid; i < contested; i += kSplitThreads) {
    const int block = p.init + i, split = block / split_blocks;
    float score = 0;
    const auto add = [&](const float* sums, int of) {
      const float2* const factor = stats + of * room;
#pragma unroll 4
      for (int head = 0; head < room; head += 4) {
        const float4 x = *reinterpret_cast<const float4*>(sums + head);
        score = fmaf(factor[head].y, x.x, score);
        score = fmaf(factor[head + 1].y, x.y, score);
        score = fmaf(factor[head + 2].y, x.z, score);
        score = fmaf(factor[head + 3].y, x.w, score);
      }
    };
    if (block * p.block_cells < rows_end) add(p.block_sums + (row * p.sum_blocks + block) * room, split);
    if (p.lead > 0 && block % split_blocks == split_blocks - 1 && split + 1 < splits) {
      add(p.first_sums + (row * p.compressed_splits + split + 1) * room, split + 1);
    }
    ranks[i] = RankOf(score);
  }
  __syncthreads();

  // All above the rank that `capacity` of them reach, and the first of those at it; a thread has neighbouring blocks.
  const unsigned reached = RankReached(ranks, contested, capacity);
  const int share = (contested + kSplitThreads - 1) / kSplitThreads;
  const int begin = min(tid * share, contested), end = min(begin + share, contested);
  int own_above = 0, own_ties = 0;
  for (int i = begin; i < end; ++i) {
    own_above += ranks[i] > reached;
    own_ties += ranks[i] == reached;
  }
  __shared__ int sums[2][kSplitThreads / kWarp];
  const int2 above = SumBefore(own_above, sums[0]), ties = SumBefore(own_ties, sums[1]);
  const int ties_taken = capacity - above.y;
  int tie = ties.x, place = p.init + above.x + min(ties.x, ties_taken);
  for (int i = begin; i < end; ++i) {
    if (ranks[i] > reached || (ranks[i] == reached && tie++ < ties_taken)) selected[place++] = p.init + i;
  }
}

}  // namespace longspan
