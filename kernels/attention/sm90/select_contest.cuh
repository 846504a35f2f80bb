// The contest of Hopper's selection: half a warp draws the scores of selection blocks from the sums that the products'
// warpgroups leave in shared memory, tile after tile, and keeps a query's best in order in registers.
#pragma once

#include "kernels/attention/sm90/select_work.cuh"

namespace longspan {

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
// 2, the usual ones: each tile completes 32 blocks, two a lane.
template <int Places, bool Four, int KW, int Heads>
__device__ void HoldContests(const SelectParams& params, SelectShared<KW, Heads>& shared) {
  constexpr int kStages = SelectShared<KW, Heads>::kSumStages;
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, half_lane = lane % kHalfWarp;
  const int of = warp / 2;  // the warpgroup whose queries these are
  const int first_query = of * 8 + warp % 2 * 4 + lane / kHalfWarp * kContests;
  const int capacity = params.select - params.init - params.local;
  // How many tiles back a block may begin.
  const int reach = (params.block_cells + params.sight.lead - 1 + kTileKeys - 1) / kTileKeys;
  Ring<kStages> ring;
  // The tile `back` before the present one has been read.
  const auto release = [&](int back) {
    if (lane == 0) Arrive(&shared.sums_empty[of][ring.at >= back ? ring.at - back : ring.at - back + kStages]);
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
    // Blocks first + 16 * p + i, p of a lane's scores, i its place in the half-warp; those before `end` are complete.
    const auto offer = [&]<int Scores>(int first, int end, const float(&score)[kContests][Scores]) {
      int count[kContests];
#pragma unroll
      for (int i = 0; i < kContests; ++i) {
        count[i] = 0;
#pragma unroll
        for (int p = 0; p < Scores; ++p) {
          const int block = first + p * kHalfWarp + half_lane;
          const float rank = block < end && blocks[i].contested(block) ? fmaxf(score[i][p], kNanRank) : kNoRank;
          if (params.scores != nullptr && block < end && blocks[i].forced(block)) {
            params.scores[blocks[i].place + blocks[i].PlaceOf(params, block)] = score[i][p];
          }
          const unsigned better = __ballot_sync(~0u, rank > worst[i]) >> (lane & kHalfWarp) & 0xFFFF;
          if (rank > worst[i]) {
            shared.offered[first_query + i][count[i] + __popc(better & ((1u << half_lane) - 1))] = {rank, block};
          }
          count[i] += __popc(better);
        }
      }
      static_assert(kContests == 2);
      const int rounds = __reduce_max_sync(~0u, max(count[0], count[1]));
      if (rounds == 0) return;
      __syncwarp();
      for (int round = 0; round < rounds; ++round) {
#pragma unroll
        for (int i = 0; i < kContests; ++i) {
          const OfferedBlock next = shared.offered[first_query + i][round];
          best[i].Insert(round < count[i] ? next.rank : kNoRank, next.block);
        }
      }
#pragma unroll
      for (int i = 0; i < kContests; ++i) {
        if (capacity > 0) worst[i] = best[i].RankAt(capacity - 1);
      }
      __syncwarp();
    };

    if constexpr (Four) {
      float4 before[kContests] = {};  // the last sums of the tile before
      for (int tile = item.first_tile; tile < item.end_tile; ++tile, ring.Next()) {
        WaitBarrier(&shared.sums_full[of][ring.at], ring.parity);
        float score[kContests][2];
#pragma unroll
        for (int i = 0; i < kContests; ++i) {
          const float* const sums = shared.sums[ring.at][first_query + i];
#pragma unroll
          for (int p = 0; p < 2; ++p) {
            const int row = p * kProductKeys + half_lane * 4;
            float4 four = before[i];
            if (row > 0) four = *reinterpret_cast<const float4*>(sums + row - 4);
            score[i][p] = sums[row] + fmaf(2, four.w, fmaf(2, four.z, fmaf(2, four.y, four.x)));
          }
          before[i] = *reinterpret_cast<const float4*>(sums + kTileKeys - 4);
        }
        __syncwarp();
        release(0);
        offer(tile * (kTileKeys / 4) - 1, INT_MAX, score);
      }
    } else {
      int next = item.first_block, held = 0;
      for (int tile = item.first_tile; tile < item.end_tile; ++tile, ring.Next()) {
        WaitBarrier(&shared.sums_full[of][ring.at], ring.parity);
        const int rows_end = (tile + 1) * kTileKeys - params.sight.lead;
        const int complete = min(rows_end / params.block_cells, item.end_block);
        for (; next < complete; next = min(next + kHalfWarp, complete)) {
          float score[kContests][1];
#pragma unroll
          for (int i = 0; i < kContests; ++i) {
            score[i][0] = ScoreOfBlock<kStages>(params, shared.sums[0][first_query + i], ring.at, tile,
                                                min(next + half_lane, complete - 1));
          }
          offer(next, complete, score);
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
    }

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
