// The contest of Hopper's selection: half a warp draws the scores of selection blocks from the sums that the products'
// warpgroups leave in shared memory, tile after tile, and keeps a query's best in order in registers.
#pragma once

#include "kernels/attention/sm90/select_work.cuh"

namespace longspan {

constexpr int kHalfWarp = 16;
constexpr int kContests = 2;  // of half a warp: 16 queries are 4 warps'

// A score as a whole number: the higher the better, NaN last of all; 0 is below all.
__device__ inline unsigned RankOf(float score) { return score >= 0 ? __float_as_uint(score + 0.0f) + 2 : 1; }
__device__ inline float ScoreOfRank(unsigned rank) { return rank == 1 ? CUDART_NAN_F : __uint_as_float(rank - 2); }

// The best 16 * Places blocks offered, best first; of equals the first. Number 16 * p + i is place p of lane i.
template <int Places>
class BestBlocks {
 public:
  // By all of the half-warp, with the same; a rank of 0 changes nothing.
  __device__ __forceinline__ void Insert(unsigned rank, int block) {
#pragma unroll
    for (int place = Places - 1; place >= 0; --place) {
      unsigned before = __shfl_up_sync(~0u, rank_[place], 1, kHalfWarp);
      int block_before = __shfl_up_sync(~0u, block_[place], 1, kHalfWarp);
      const unsigned last = place == 0 ? ~0u : __shfl_sync(~0u, rank_[max(place - 1, 0)], kHalfWarp - 1, kHalfWarp);
      const int last_block = place == 0 ? 0 : __shfl_sync(~0u, block_[max(place - 1, 0)], kHalfWarp - 1, kHalfWarp);
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
  __device__ __forceinline__ unsigned RankAt(int number) const {
    unsigned rank = 0;
#pragma unroll
    for (int place = 0; place < Places; ++place) {
      const unsigned found = __shfl_sync(~0u, rank_[place], number % kHalfWarp, kHalfWarp);
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
  unsigned rank_[Places] = {};
  int block_[Places] = {};
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

  __device__ bool contested(int block) const { return block >= init_end && block < local_begin; }
  __device__ bool forced(int block) const { return block >= first && block <= own && !contested(block); }
  // Where a forced block goes.
  __device__ int PlaceOf(const SelectParams& params, int block) const {
    return block < init_end ? block - first : params.select - params.local + block - local_begin;
  }
};

// One block's score for the query whose sums are at `sums`, of tile 0 of those held; `tile` tells which tile of the
// sequence has place `at`. Rows ascending, each times the cells that it shares with the block.
template <int Stages>
__device__ __forceinline__ float ScoreOfBlock(const SelectParams& params, const float* sums, int at, int tile,
                                              int block) {
  constexpr int kStageStride = kTileQueries * kSumStride;
  int row = block * params.block_cells;
  int stage = at - (tile - row / kTileKeys);
  if (stage < 0) stage += Stages;
  row %= kTileKeys;
  if (params.block_cells == 4 && params.cells == 2) {
    const float* const from = sums + stage * kStageStride + row;
    const float4 four = *reinterpret_cast<const float4*>(from);
    const float next = row + 4 < kTileKeys ? from[4] : sums[(stage + 1 == Stages ? 0 : stage + 1) * kStageStride];
    return next + fmaf(2, four.w, fmaf(2, four.z, fmaf(2, four.y, four.x)));
  }
  const int rows = params.block_cells + params.sight.lead;
  float sum = 0;
  for (int i = 0; i < rows; ++i) {
    sum = fmaf(static_cast<float>(min(min(i + 1, params.cells), rows - i)), sums[stage * kStageStride + row], sum);
    if (++row == kTileKeys) {
      row = 0;
      if (++stage == Stages) stage = 0;
    }
  }
  return sum;
}

// Writes `selected` (and `scores`): by one warpgroup, for all items of the block.
template <int Places, int KW, int Heads>
__device__ void HoldContests(const SelectParams& params, SelectShared<KW, Heads>& shared) {
  constexpr int kStages = SelectShared<KW, Heads>::kSumStages;
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, half_lane = lane % kHalfWarp;
  const int of = warp / 2;  // the warpgroup whose queries these are
  const int first_query = of * 8 + warp % 2 * 4 + lane / kHalfWarp * kContests;
  const int capacity = params.select - params.init - params.local;
  // How many tiles back a block may begin.
  const int reach = (params.block_cells + params.sight.lead - 1 + kTileKeys - 1) / kTileKeys;
  Ring<kStages> ring;
  // The tile `back` before the present one.
  const auto release = [&](int back) {
    if (lane == 0) Arrive(&shared.sums_empty[of][ring.at >= back ? ring.at - back : ring.at - back + kStages]);
  };

  for (int index = blockIdx.x; index < ItemCount(params); index += gridDim.x) {
    const SelectItem item = FindItem(params, index);
    QueryBlocks blocks[kContests];
    BestBlocks<Places> best[kContests];
    unsigned worst[kContests];
#pragma unroll
    for (int i = 0; i < kContests; ++i) {
      blocks[i] = QueryBlocks(params, item, first_query + i);
      worst[i] = capacity == 0 ? ~0u : 0;
    }
    int next = item.first_block, held = 0;
    for (int tile = item.first_tile; tile < item.end_tile; ++tile, ring.Next()) {
      const int rows_end = (tile + 1) * kTileKeys - params.sight.lead;
      const int complete = rows_end < 0 ? 0 : min(rows_end / params.block_cells, item.end_block);
      WaitBarrier(&shared.sums_full[of][ring.at], ring.parity);
      for (; next < complete; next = min(next + kHalfWarp, complete)) {
        const int block = next + half_lane;
        unsigned rank[kContests], mine[kContests];
        int rounds = 0;
#pragma unroll
        for (int i = 0; i < kContests; ++i) {
          const float score =
              ScoreOfBlock<kStages>(params, shared.sums[0][first_query + i], ring.at, tile, min(block, complete - 1));
          rank[i] = block < complete && blocks[i].contested(block) ? RankOf(score) : 0;
          if (params.scores != nullptr && block < complete && blocks[i].forced(block)) {
            params.scores[blocks[i].place + blocks[i].PlaceOf(params, block)] = score;
          }
          const unsigned better = __ballot_sync(~0u, rank[i] > worst[i]);
          rounds = max(rounds, max(__popc(better & 0xFFFF), __popc(better >> kHalfWarp)));
          mine[i] = better >> (lane & kHalfWarp) & 0xFFFF;
        }
        if (rounds == 0) continue;
        for (; rounds > 0; --rounds) {
#pragma unroll
          for (int i = 0; i < kContests; ++i) {
            const int from = __ffs(mine[i]) - 1;
            const unsigned offered = __shfl_sync(~0u, rank[i], from & (kHalfWarp - 1), kHalfWarp);
            best[i].Insert(mine[i] == 0 ? 0 : offered, next + from);
            mine[i] &= mine[i] - 1;
          }
        }
#pragma unroll
        for (int i = 0; i < kContests; ++i) worst[i] = best[i].RankAt(max(capacity - 1, 0));
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
      best[i].ForBest(capacity, [&](int block, unsigned rank, int below) {
        if (!contest) return;
        selected[params.init + below] = block;
        if (scores != nullptr) scores[params.init + below] = ScoreOfRank(rank);
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
