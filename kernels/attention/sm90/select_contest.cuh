// The contest of Hopper's selection: half a warp draws the scores of selection blocks from the sums that the products'
// warpgroups leave in shared memory, tile after tile, and keeps a query's best in order in registers.
#pragma once

#include "kernels/attention/sm90/select_work.cuh"

namespace longspan {

constexpr int kHalfWarp = 16;
constexpr int kContests = 2;  // of half a warp: 16 queries are 4 warps'

// How scores are ranked: by themselves, NaN after all, then places that are empty, then what takes no part.
constexpr float kNanRank = -1, kEmptyRank = -2, kNoRank = -INFINITY;

// The best 16 * Places blocks offered, best first; of equals the first. Number 16 * p + i is place p of lane i.
template <int Places>
class BestBlocks {
 public:
  __device__ BestBlocks() {
#pragma unroll
    for (int place = 0; place < Places; ++place) {
      rank_[place] = kEmptyRank;
      block_[place] = -1;
    }
  }

  // By the whole warp, each half with its own rank. What is no better than the last place changes nothing.
  __device__ __forceinline__ void Insert(float rank, int block) {
#pragma unroll
    for (int place = Places - 1; place >= 0; --place) {
      float before = __shfl_up_sync(~0u, rank_[place], 1, kHalfWarp);
      int block_before = __shfl_up_sync(~0u, block_[place], 1, kHalfWarp);
      float last = INFINITY;
      int last_block = 0;
      if (place > 0) {
        last = __shfl_sync(~0u, rank_[max(place - 1, 0)], kHalfWarp - 1, kHalfWarp);
        last_block = __shfl_sync(~0u, block_[max(place - 1, 0)], kHalfWarp - 1, kHalfWarp);
      }
      if (threadIdx.x % kHalfWarp == 0) {
        before = last;
        block_before = last_block;
      }
      if (rank_[place] < rank) {
        const bool here = before >= rank;
        rank_[place] = here ? rank : before;
        block_[place] = here ? block : block_before;
      }
    }
  }

  // Of number `number`, the same in the whole warp.
  __device__ __forceinline__ float RankAt(int number) const {
    float rank = 0;
#pragma unroll
    for (int place = 0; place < Places; ++place) {
      const float found = __shfl_sync(~0u, rank_[place], number % kHalfWarp, kHalfWarp);
      if (number / kHalfWarp == place) rank = found;
    }
    return rank;
  }

  // f(block, rank, how many of the best `count` have lower blocks) for this lane's of them. By the whole warp.
  template <typename F>
  __device__ void ForBest(int count, const F& f) const {
    int below[Places] = {};
#pragma unroll
    for (int place = 0; place < Places; ++place) {
      for (int i = 0; i < min(count - place * kHalfWarp, kHalfWarp); ++i) {
        const int other = __shfl_sync(~0u, block_[place], i, kHalfWarp);
#pragma unroll
        for (int mine = 0; mine < Places; ++mine) below[mine] += other < block_[mine];
      }
    }
#pragma unroll
    for (int place = 0; place < Places; ++place) {
      if (place * kHalfWarp + static_cast<int>(threadIdx.x % kHalfWarp) < count) {
        f(block_[place], rank_[place], below[place]);
      }
    }
  }

 private:
  float rank_[Places];
  int block_[Places];
};

// Which of a query's blocks are forced, and where they go in its row of `selected`. Either all visible blocks are
// chosen, or exactly `capacity` of those in [init_end, local_begin).
struct QueryBlocks {
  int first = 0, own = -1;  // visible; no query: none
  int init_end = 0, local_begin = 0;
  int64_t place = -1;  // of its row in selected and scores; no query: -1

  QueryBlocks() = default;
  __device__ QueryBlocks(const SelectParams& params, const SelectItem& item, int query) {
    if (query >= item.queries.count) return;
    const int position = item.queries.position + query;
    first = params.sight.DocStart(position) / params.select_block;
    own = position / params.select_block;
    const bool all = own + 1 - first <= params.select;
    init_end = all ? own + 1 : first + params.init;
    local_begin = all ? own + 1 : own + 1 - params.local;
    place = (static_cast<int64_t>(item.queries.row + query) * params.groups + item.group) * params.select;
  }

  __device__ bool contested(int block) const {
    return static_cast<unsigned>(block - init_end) < static_cast<unsigned>(local_begin - init_end);
  }
  __device__ bool forced(int block) const { return block >= first && block <= own && !contested(block); }
  // Where a forced block goes.
  __device__ int PlaceOf(const SelectParams& params, int block) const {
    return block < init_end ? block - first : params.select - params.local + block - local_begin;
  }
};

// A block's score from the sums of its query, `sums` of the first of the stages; stage `at` has tile `tile`. Rows
// ascending, each times the cells that it shares with the block.
template <int Stages>
__device__ __forceinline__ float ScoreOfBlock(const SelectParams& params, const float* sums, int at, int tile,
                                              int block) {
  const int rows = params.block_cells + params.sight.lead, first = block * params.block_cells;
  int row = first % kTileKeys, stage = at - (tile - first / kTileKeys);
  if (stage < 0) stage += Stages;
  float sum = 0;
  for (int i = 0; i < rows; ++i) {
    sum = fmaf(static_cast<float>(min(min(i + 1, params.cells), rows - i)),
               sums[stage * (kTileQueries * kSumStride) + row], sum);
    if (++row == kTileKeys) {
      row = 0;
      if (++stage == Stages) stage = 0;
    }
  }
  return sum;
}

// Writes `selected` (and `scores`): by one warpgroup, for all items of the block. Four: blocks of 4 strides and keys of
// 2, the usual ones: each tile completes 16 blocks, one a lane.
template <int Places, bool Four, int KW, int Heads>
__device__ void HoldContests(const SelectParams& params, SelectShared<KW, Heads>& shared) {
  constexpr int kStages = SelectShared<KW, Heads>::kSumStages;
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, half_lane = lane % kHalfWarp;
  const int of = warp / 2;  // the warpgroup whose queries these are
  const int first_query = of * 8 + warp % 2 * 4 + lane / kHalfWarp * kContests;
  const int capacity = params.select - params.init - params.local;
  // How many tiles back a block may begin.
  const int reach = Four ? 1 : (params.block_cells + params.sight.lead - 1 + kTileKeys - 1) / kTileKeys;
  Ring<kStages> ring;
  const auto stage_before = [&](int back) { return ring.at >= back ? ring.at - back : ring.at - back + kStages; };
  const auto release = [&](int back) {
    if (lane == 0) Arrive(&shared.sums_empty[of][stage_before(back)]);
  };

  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x) {
    const SelectItem item = FindItem(params, index);
    QueryBlocks blocks[kContests];
    BestBlocks<Places> best[kContests];
    float worst[kContests];
#pragma unroll
    for (int i = 0; i < kContests; ++i) {
      blocks[i] = QueryBlocks(params, item, first_query + i);
      worst[i] = capacity == 0 ? INFINITY : kEmptyRank;
    }
    // Blocks [first, first+16), one a lane, of which those before `end` are complete.
    const auto offer = [&](int first, int end, const float(&score)[kContests]) {
      const int block = first + half_lane;
#pragma unroll
      for (int i = 0; i < kContests; ++i) {
        const float rank = block < end && blocks[i].contested(block) ? fmaxf(score[i], kNanRank) : kNoRank;
        if (params.scores != nullptr && block < end && blocks[i].forced(block)) {
          params.scores[blocks[i].place + blocks[i].PlaceOf(params, block)] = score[i];
        }
        unsigned better = __ballot_sync(~0u, rank > worst[i]);
        if (better == 0) continue;
        // What is better in one half of the warp is offered in both.
        for (better = (better | better >> kHalfWarp) & 0xFFFF; better != 0; better &= better - 1) {
          const int from = __ffs(better) - 1;
          best[i].Insert(__shfl_sync(~0u, rank, from, kHalfWarp), first + from);
        }
        worst[i] = best[i].RankAt(capacity - 1);
      }
    };
    int next = item.first_block, held = 0;
    for (int tile = item.first_tile; tile < item.end_tile; ++tile, ring.Next()) {
      WaitBarrier(&shared.sums_full[of][ring.at], ring.parity);
      float score[kContests];
      if constexpr (Four) {
        // The first lane's block begins with the last rows of the tile before.
        const int from = half_lane == 0 ? stage_before(1) : ring.at, row = (half_lane * 4 + 60) % kTileKeys;
#pragma unroll
        for (int i = 0; i < kContests; ++i) {
          const float4 four = *reinterpret_cast<const float4*>(&shared.sums[from][first_query + i][row]);
          const float last = shared.sums[ring.at][first_query + i][half_lane * 4];
          score[i] = last + fmaf(2, four.w, fmaf(2, four.z, fmaf(2, four.y, four.x)));
        }
        offer(tile * kHalfWarp - 1, INT_MAX, score);
      } else {
        const int rows_end = (tile + 1) * kTileKeys - params.sight.lead;
        const int complete = rows_end < 0 ? 0 : min(rows_end / params.block_cells, item.end_block);
        for (; next < complete; next = min(next + kHalfWarp, complete)) {
#pragma unroll
          for (int i = 0; i < kContests; ++i) {
            score[i] = ScoreOfBlock<kStages>(params, shared.sums[0][first_query + i], ring.at, tile,
                                             min(next + half_lane, complete - 1));
          }
          offer(next, complete, score);
        }
      }
      __syncwarp();
      if (held == reach) {
        release(reach);
      } else {
        ++held;
      }
    }
    // `ring` is one tile on.
    while (held > 0) release(held--);

#pragma unroll
    for (int i = 0; i < kContests; ++i) {
      const QueryBlocks& query = blocks[i];
      int32_t* const selected = params.selected + query.place;
      float* const scores = params.scores == nullptr ? nullptr : params.scores + query.place;
      const bool contest = query.init_end < query.local_begin;
      best[i].ForBest(capacity, [&](int block, float rank, int below) {
        if (!contest) return;
        selected[params.init + below] = block;
        if (scores != nullptr) scores[params.init + below] = rank == kNanRank ? CUDART_NAN_F : rank;
      });
      if (query.place < 0) continue;
      for (int n = half_lane; n < params.select; n += kHalfWarp) {
        if (!contest) {
          selected[n] = query.first + n <= query.own ? query.first + n : -1;
          if (scores != nullptr && query.first + n > query.own) scores[n] = 0;
        } else if (n < params.init) {
          selected[n] = query.first + n;
        } else if (n >= params.select - params.local) {
          selected[n] = query.local_begin + n - (params.select - params.local);
        }
      }
    }
    __syncwarp();
  }
}

}  // namespace longspan
