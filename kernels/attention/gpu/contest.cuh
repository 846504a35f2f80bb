// The contest of selection on the GPU: one warp a query draws the scores of selection blocks from the sums of
// probabilities in a ring and keeps the best of them in registers.
#pragma once

#include "kernels/attention/gpu/sight.cuh"

namespace longspan {

constexpr int kSelectQueries = 8;  // of a thread block: columns of mma.sync, and a warp each for the contest
constexpr int kSelectWarps = 8;
constexpr int kSelectThreads = 32 * kSelectWarps;
constexpr int kWarpRows = 32;
constexpr int kSelectRows = kSelectWarps * kWarpRows;
// The contest after one step reads the rows of that step and of the one before; the next step may be written meanwhile.
constexpr int kRing = 3 * kSelectRows;
constexpr int kRingStride = kRing + 4;  // queries 2c and rows g of a warp's store: 32 different banks
constexpr int kMaxSelect = 64;
constexpr int kMaxBlockCells = 128;  // so that a block's rows lie in two steps
static_assert(kSelectWarps == kSelectQueries);

struct SelectParams {
  DType dtype;           // of q and k
  const void* q;         // [T,H,K]
  const void* k;         // [R,G,K]
  const int32_t* table;  // pages of k
  int page_rows;
  int64_t key_rows;   // R
  const float* lse;   // [T,H]
  int32_t* selected;  // [T,G,N]
  float* scores;      // [T,G,N] or null
  int heads, groups, key_width;
  float scale_log2;
  int cells, block_cells;  // strides in a compressed token, in a selection block
  int select_block, select, init, local;
  RangeSight sight;       // of the compressed branch
  QueryTilesGpu queries;  // in tiles of kSelectQueries
  int left_processors;    // multiprocessors that blocks which stay leave to others

  __host__ __device__ int group_heads() const { return heads / groups; }
  std::string Sizes() const { return fmt::format("{}, K={}", DTypeName(dtype), key_width); }
};

// A block and its score as one number: the higher the better, ties go to the lower index, NaN is last of all.
constexpr unsigned long long kUnused = ~0ull, kEmpty = 0;

__device__ inline unsigned long long EntryOf(int block, float score) {
  const unsigned rank = score >= 0 ? __float_as_uint(score + 0.0f) + 1 : 0;  // + 0: no negative zero
  return static_cast<unsigned long long>(rank) << 32 | (0xFFFFFFFFu - block);
}
__device__ inline bool IsEntry(unsigned long long entry) { return entry != kUnused && entry != kEmpty; }
__device__ inline int BlockOf(unsigned long long entry) {
  return static_cast<int>(0xFFFFFFFFu - static_cast<unsigned>(entry));
}
__device__ inline float ScoreOf(unsigned long long entry) {
  const unsigned rank = static_cast<unsigned>(entry >> 32);
  return rank == 0 ? __int_as_float(0x7FFFFFFF) : __uint_as_float(rank - 1);
}

// The best `capacity` of the entries offered, two places a lane of one warp.
class BestEntries {
 public:
  __device__ explicit BestEntries(int capacity) {
    const int lane = threadIdx.x % 32;
    entry_[0] = lane < capacity ? kEmpty : kUnused;
    entry_[1] = lane + 32 < capacity ? kEmpty : kUnused;
    worst_ = capacity > 0 ? kEmpty : kUnused;
  }

  // One a lane; kEmpty offers nothing.
  __device__ void Offer(unsigned long long entry) {
    unsigned better = __ballot_sync(~0u, entry > worst_);
    while (better != 0) {
      const unsigned long long next = __shfl_sync(~0u, entry, __ffs(better) - 1);
      better &= better - 1;
      if (next > worst_) Replace(next);
    }
  }

  __device__ unsigned long long entry(int place) const { return entry_[place]; }

 private:
  // `entry` takes the place of the worst.
  __device__ void Replace(unsigned long long entry) {
    const unsigned owners = __ballot_sync(~0u, entry_[0] == worst_ || entry_[1] == worst_);
    if (static_cast<int>(threadIdx.x % 32) == __ffs(owners) - 1) {
      if (entry_[0] == worst_) {
        entry_[0] = entry;
      } else {
        entry_[1] = entry;
      }
    }
    worst_ = min(entry_[0], entry_[1]);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) worst_ = min(worst_, __shfl_xor_sync(~0u, worst_, step));
  }

  unsigned long long entry_[2];
  unsigned long long worst_;
};

// One query's choice, by one warp.
class Contest {
 public:
  __device__ Contest(const SelectParams& params, int position)
      : params_(params),
        first_(params.sight.DocStart(position) / params.select_block),
        own_(position / params.select_block),
        init_end_(min(first_ + params.init, own_ + 1)),
        local_begin_(max(own_ + 1 - params.local, init_end_)),
        next_(first_),
        best_(params.select - forced()) {}

  __device__ int visible() const { return own_ - first_ + 1; }

  // All blocks that need no row from `end` on enter. ring [kRingStride] of this query; forced_scores [kMaxSelect].
  __device__ void Advance(int end, const float* ring, float* forced_scores) {
    const SelectParams& p = params_;
    const int complete = min(max(end - p.sight.lead, 0) / p.block_cells, own_ + 1);
    for (; next_ < complete; next_ += 32) {
      const int block = next_ + static_cast<int>(threadIdx.x % 32);
      unsigned long long entry = kEmpty;
      if (block < complete) {
        const float score = Score(block, ring);
        if (block < init_end_) {
          forced_scores[block - first_] = score;
        } else if (block >= local_begin_) {
          forced_scores[init_end_ - first_ + block - local_begin_] = score;
        } else {
          entry = EntryOf(block, score);
        }
      }
      best_.Offer(entry);
    }
    next_ = max(first_, complete);
  }

  // Writes the query's row, ascending, then -1. selected, scores [N], scores may be null.
  __device__ void Finish(const float* forced_scores, int32_t* selected, float* scores) const {
    const int lane = threadIdx.x % 32, init = init_end_ - first_, capacity = params_.select - forced();
    __syncwarp();
    int chosen = 0, block[2], rank[2] = {0, 0};
    for (int place = 0; place < 2; ++place) {
      const bool real = IsEntry(best_.entry(place));
      chosen += __popc(__ballot_sync(~0u, real));
      block[place] = real ? BlockOf(best_.entry(place)) : INT_MAX;
    }
    for (int i = 0; i < capacity; ++i) {
      const int other = __shfl_sync(~0u, i < 32 ? block[0] : block[1], i % 32);
      rank[0] += other < block[0];
      rank[1] += other < block[1];
    }
    for (int place = 0; place < 2; ++place) {
      if (block[place] == INT_MAX) continue;
      selected[init + rank[place]] = block[place];
      if (scores != nullptr) scores[init + rank[place]] = ScoreOf(best_.entry(place));
    }
    for (int i = lane; i < params_.select; i += 32) {
      if (i >= init && i < init + chosen) continue;
      const int forced_place = i < init ? i : i - chosen;
      const bool there = forced_place < forced();
      selected[i] = !there ? -1 : i < init ? first_ + i : local_begin_ + forced_place - init;
      if (scores != nullptr) scores[i] = there ? forced_scores[forced_place] : 0.0f;
    }
  }

 private:
  __device__ int forced() const { return init_end_ - first_ + own_ + 1 - local_begin_; }

  // Rows block*cells .. of the sequence, by ascending row, each times the cells it shares with the block.
  __device__ float Score(int block, const float* ring) const {
    const int cells = params_.cells, rows = params_.block_cells + params_.sight.lead;
    int place = block * params_.block_cells % kRing;
    float sum = 0;
    for (int i = 0; i < rows; ++i) {
      sum = fmaf(static_cast<float>(min(min(i + 1, cells), rows - i)), ring[place], sum);
      place = place + 1 == kRing ? 0 : place + 1;
    }
    return sum;
  }

  const SelectParams& params_;
  int first_, own_;             // visible blocks [first, own]
  int init_end_, local_begin_;  // forced: [first, init_end) and [local_begin, own]
  int next_;                    // the first block that has not entered
  BestEntries best_;
};

}  // namespace longspan
