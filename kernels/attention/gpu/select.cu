// Selection on the GPU: overwrites `selected` (and `scores`).
//
// A block takes 8 neighbouring queries of one group and walks over the compressed rows they see in steps of 256 rows at
// absolute positions, 32 rows a warp. The product is transposed, rows x queries, one head after another: a warp keeps
// its rows in registers, so that the sum of probabilities over the group's heads stays in a thread's registers and has
// one order. The sums of a step go to a ring in shared memory, from which one warp a query draws the scores of the
// selection blocks that are complete and keeps the best of them in registers. No score reaches device memory unless it
// is asked for, and a query's scores depend on absolute positions alone. Bound by the tensor cores (bf16).
#include <algorithm>
#include <climits>

#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/attention.h"
#include "kernels/attention/gpu/sight.cuh"
#include "kernels/base/gpu_common.cuh"
#include "kernels/base/ptx_sm80.cuh"
#include "runtime/gpu.h"

namespace longspan {
namespace {

constexpr int kQueries = 8;  // columns of mma.sync
constexpr int kWarps = 8;    // the contest takes one warp a query
constexpr int kThreads = 32 * kWarps;
constexpr int kWarpRows = 32;
constexpr int kStepRows = kWarps * kWarpRows;
// The contest after one step reads the rows of that step and of the one before; the next step may be written meanwhile.
constexpr int kRing = 3 * kStepRows;
constexpr int kRingStride = kRing + 4;  // queries 2c and rows g of a warp's store: 32 different banks
constexpr int kMaxSelect = 64;
constexpr int kMaxBlockCells = 128;  // so that a block's rows lie in two steps
constexpr int kMaxTensorWidth = 192;
static_assert(kWarps == kQueries);

struct SelectParams {
  const void* q;         // [T,H,K]
  const void* k;         // [R,G,K]
  const int32_t* table;  // pages of k
  int page_rows;
  const float* lse;   // [T,H]
  int32_t* selected;  // [T,G,N]
  float* scores;      // [T,G,N] or null
  int heads, groups, width;
  float scale_log2;
  int cells, block_cells;  // strides in a compressed token, in a selection block
  int select_block, select, init, local;
  SightGpu sight;
  QueryTilesGpu queries;

  __device__ int group_heads() const { return heads / groups; }
  __device__ int lead() const { return cells - 1; }
  __device__ int doc_start(int position) const { return sight.doc_start == nullptr ? 0 : sight.doc_start[position]; }
};

constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ float Exp2Fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The queries of a block, in shared memory.
struct TileSight {
  SpanGpu seen[kQueries];  // empty for queries that are not there
};

// What a step of one warp needs to know.
struct StepArgs {
  const SelectParams& params;
  const QueryTileGpu& tile;
  const TileSight& sight;
  SpanGpu seen;  // by any query of the tile
  int group;
  int row;      // the warp's first of kWarpRows
  float* ring;  // [kQueries, kRingStride], where that row goes
};

// bf16, K up to 32 * Chunks and a multiple of 8, zeros beyond K.
//
// The order of channels in a product is free as long as both operands agree: lane c = lane % 4 takes channels
// 32*i + 8*c .. +7 of its row, 16 bytes at once, as its share of two steps of mma.sync.
template <int Chunks>
struct TensorScores {
  // Tiles of 16 rows whose keys are in registers at one time.
  static constexpr int kTiles = Chunks <= 4 ? 2 : 1;

  // q in the order of the fragments [group_heads, Chunks, lane] of 16 bytes, then lse in units of log2 [group_heads,
  // kQueries].
  static int64_t SharedBytes(int group_heads) { return group_heads * (Chunks * 512 + kQueries * sizeof(float)); }

  __device__ static void Prepare(const SelectParams& p, const QueryTileGpu& tile, int group, uint4* shared) {
    const int group_heads = p.group_heads(), pieces = group_heads * Chunks * 32;
    const auto* const q = static_cast<const __nv_bfloat16*>(p.q);
    for (int i = threadIdx.x; i < pieces; i += kThreads) {
      const int query = i % 32 / 4, channel = i / 32 % Chunks * 32 + i % 4 * 8, head = i / (32 * Chunks);
      const int64_t row = tile.row + query;
      const bool there = query < tile.count && channel < p.width;
      const __nv_bfloat16* const from = q + (row * p.heads + group * group_heads + head) * p.width + channel;
      shared[i] = there ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    }
    float* const lse = reinterpret_cast<float*>(shared + pieces);
    for (int i = threadIdx.x; i < group_heads * kQueries; i += kThreads) {
      const int64_t row = tile.row + i % kQueries;
      const int head = group * group_heads + i / kQueries;
      lse[i] = i % kQueries < tile.count ? p.lse[row * p.heads + head] * kLog2E : 0.0f;
    }
  }

  __device__ __forceinline__ static void Step(const StepArgs& args, const uint4* shared) {
    const SelectParams& p = args.params;
    const int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4, group_heads = p.group_heads();
    const auto* const k = static_cast<const __nv_bfloat16*>(p.k);
    const float2* const lse = reinterpret_cast<const float2*>(shared + group_heads * Chunks * 32) + c;
    const RowFinder finder(p.table, p.page_rows, args.row, kWarpRows);
    const SpanGpu seen[2] = {args.sight.seen[2 * c], args.sight.seen[2 * c + 1]};
#pragma unroll 1
    for (int first = 0; first < kWarpRows; first += 16 * kTiles) {
      uint4 key[kTiles][2][Chunks];
#pragma unroll
      for (int half = 0; half < 2 * kTiles; ++half) {
        const int i = first + half * 8 + g, row = args.row + i;
        const int64_t place = row >= args.seen.begin && row < args.seen.end ? finder.at(i) : -1;
        const __nv_bfloat16* const from = k + (place * p.groups + args.group) * p.width + c * 8;
#pragma unroll
        for (int chunk = 0; chunk < Chunks; ++chunk) {
          const bool there = place >= 0 && chunk * 32 + c * 8 < p.width;
          key[half / 2][half % 2][chunk] =
              there ? __ldg(reinterpret_cast<const uint4*>(from + chunk * 32)) : make_uint4(0, 0, 0, 0);
        }
      }
      float sum[kTiles][4] = {};
#pragma unroll 1
      for (int head = 0; head < group_heads; ++head) {
        float score[kTiles][4] = {};
#pragma unroll
        for (int chunk = 0; chunk < Chunks; ++chunk) {
          const uint4 q = shared[(head * Chunks + chunk) * 32 + lane];
#pragma unroll
          for (int tile = 0; tile < kTiles; ++tile) {
            const uint4 low = key[tile][0][chunk], high = key[tile][1][chunk];
            const uint32_t even[4] = {low.x, high.x, low.y, high.y}, odd[4] = {low.z, high.z, low.w, high.w};
            Mma(score[tile], even, q.x, q.y);
            Mma(score[tile], odd, q.z, q.w);
          }
        }
        const float2 of = lse[head * (kQueries / 2)];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sum[tile][i] += Exp2Fast(fmaf(score[tile][i], p.scale_log2, i % 2 == 0 ? -of.x : -of.y));
          }
        }
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int at = first + tile * 16 + i / 2 * 8 + g, row = args.row + at;
          const SpanGpu& span = seen[i % 2];
          args.ring[(2 * c + i % 2) * kRingStride + at] = row >= span.begin && row < span.end ? sum[tile][i] : 0.0f;
        }
      }
    }
  }
};

// Any type and width, without tensor cores: a lane takes one row. For checking.
template <typename T>
struct PlainScores {
  static int64_t SharedBytes(int) { return 0; }

  __device__ static void Prepare(const SelectParams&, const QueryTileGpu&, int, uint4*) {}

  __device__ __forceinline__ static void Step(const StepArgs& args, const uint4*) {
    const SelectParams& p = args.params;
    const int lane = threadIdx.x % 32, row = args.row + lane, group_heads = p.group_heads();
    const RowFinder finder(p.table, p.page_rows, args.row, kWarpRows);
    const int64_t place = row >= args.seen.begin && row < args.seen.end ? finder.at(lane) : -1;
    const bool there = place >= 0;
    const T* const key = static_cast<const T*>(p.k) + ((there ? place : 0) * p.groups + args.group) * p.width;
    float sum[kQueries] = {};
    for (int head = 0; head < group_heads; ++head) {
      const T* query[kQueries];
      float score[kQueries] = {};
      int64_t of[kQueries];
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        of[i] = int64_t{args.tile.row + min(i, args.tile.count - 1)} * p.heads + args.group * group_heads + head;
        query[i] = static_cast<const T*>(p.q) + of[i] * p.width;
      }
      for (int channel = 0; channel < p.width; ++channel) {
        const float x = there ? ToFloat(key[channel]) : 0.0f;
#pragma unroll
        for (int i = 0; i < kQueries; ++i) score[i] = fmaf(x, ToFloat(query[i][channel]), score[i]);
      }
#pragma unroll
      for (int i = 0; i < kQueries; ++i) sum[i] += exp2f(fmaf(score[i], p.scale_log2, -p.lse[of[i]] * kLog2E));
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      const SpanGpu span = args.sight.seen[i];
      args.ring[i * kRingStride + lane] = row >= span.begin && row < span.end ? sum[i] : 0.0f;
    }
  }
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
        first_(params.doc_start(position) / params.select_block),
        own_(position / params.select_block),
        init_end_(min(first_ + params.init, own_ + 1)),
        local_begin_(max(own_ + 1 - params.local, init_end_)),
        next_(first_),
        best_(params.select - forced()) {}

  __device__ int visible() const { return own_ - first_ + 1; }

  // All blocks that need no row from `end` on enter. ring [kRingStride] of this query; forced_scores [kMaxSelect].
  __device__ void Advance(int end, const float* ring, float* forced_scores) {
    const SelectParams& p = params_;
    const int complete = min(max(end - p.lead(), 0) / p.block_cells, own_ + 1);
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
    const int cells = params_.cells, rows = params_.block_cells + params_.lead();
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

template <typename Scores>
__global__ __launch_bounds__(kThreads, 2) void SelectKernel(const __grid_constant__ SelectParams p) {
  extern __shared__ uint4 shared[];
  __shared__ float ring[kQueries * kRingStride];
  __shared__ float forced_scores[kQueries * kMaxSelect];
  __shared__ TileSight sight;

  // The last queries have the most to do: they go first.
  const int group = blockIdx.x % p.groups, warp = threadIdx.x / 32;
  const QueryTileGpu tile =
      FindQueries(p.queries, p.queries.first_tile[p.queries.count] - 1 - static_cast<int>(blockIdx.x / p.groups));
  const int last = tile.position + tile.count - 1;
  const bool active = warp < tile.count;  // does this warp hold a contest
  Contest contest(p, active ? tile.position + warp : last);

  if (threadIdx.x < kQueries) {
    const int query = threadIdx.x;
    sight.seen[query] = query < tile.count ? SeenSpan(p.sight, tile.position + query) : SpanGpu{0, 0};
  }
  // While all visible blocks fit, nobody asks for their order.
  const bool needed = __syncthreads_or(p.scores != nullptr || contest.visible() > p.select) != 0;
  const SpanGpu seen = {SeenSpan(p.sight, tile.position).begin, needed ? SeenSpan(p.sight, last).end : 0};
  if (needed) {
    Scores::Prepare(p, tile, group, shared);
    __syncthreads();
  }

  const int first_row = p.doc_start(tile.position) / p.select_block * p.block_cells;
  const int end_row = (last / p.select_block + 1) * p.block_cells + p.lead();
  for (int step = first_row / kStepRows; step * kStepRows < end_row; ++step) {
    const int row = step * kStepRows + warp * kWarpRows;
    float* const to = ring + step % 3 * kStepRows + warp * kWarpRows;
    if (row < seen.end && row + kWarpRows > seen.begin) {
      Scores::Step({p, tile, sight, seen, group, row, to}, shared);
    } else {
      for (int query = 0; query < kQueries; ++query) to[query * kRingStride + threadIdx.x % 32] = 0;
    }
    __syncthreads();
    if (active) contest.Advance((step + 1) * kStepRows, ring + warp * kRingStride, forced_scores + warp * kMaxSelect);
  }
  if (!active) return;
  const int64_t place = (int64_t{tile.row + warp} * p.groups + group) * p.select;
  contest.Finish(forced_scores + warp * kMaxSelect, p.selected + place,
                 p.scores == nullptr ? nullptr : p.scores + place);
}

constexpr int64_t kMaxDynamicShared = 128 << 10;

template <typename Scores>
void Run(cudaStream_t stream, const SelectParams& params) {
  const int64_t bytes = Scores::SharedBytes(params.heads / params.groups);
  CudaCheck(
      cudaFuncSetAttribute(SelectKernel<Scores>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
      "attention.select");
  SelectKernel<Scores><<<params.queries.tiles() * params.groups, kThreads, bytes, stream>>>(params);
}

template <int Chunks>
bool Fits(const SelectParams& params) {
  return TensorScores<Chunks>::SharedBytes(params.heads / params.groups) <= kMaxDynamicShared;
}

void RunSelect(cudaStream_t stream, DType dtype, const SelectParams& params) {
  if (params.queries.tiles() == 0) return;
  if (dtype != DType::kBf16) return Run<PlainScores<float>>(stream, params);
  const bool whole = params.width % 8 == 0 && reinterpret_cast<uintptr_t>(params.q) % 16 == 0 &&
                     reinterpret_cast<uintptr_t>(params.k) % 16 == 0;
  if (whole && params.width <= 64 && Fits<2>(params)) return Run<TensorScores<2>>(stream, params);
  if (whole && params.width <= 128 && Fits<4>(params)) return Run<TensorScores<4>>(stream, params);
  if (whole && params.width <= kMaxTensorWidth && Fits<6>(params)) return Run<TensorScores<6>>(stream, params);
  Run<PlainScores<__nv_bfloat16>>(stream, params);
}

// The finaliser of splitmix64.
__device__ inline uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// hash += the segment's entries; whole numbers, so that the order of the additions does not matter.
__global__ void HashKernel(const int32_t* selected, int64_t first, int64_t count, unsigned long long* hash) {
  unsigned long long sum = 0;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    sum += Mix(Mix(first + i + 1) ^ static_cast<uint32_t>(selected[i]));
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) atomicAdd(hash, sum);
}

}  // namespace

void GpuAttention::Select(Stream& stream, const SelectArgs& args) {
  const char* const name = "attention.select";
  const DType dtype = CheckSelect(OnGpu(name), args);
  const NsaConfig& nsa = args.nsa;
  LS_CHECK(nsa.select <= kMaxSelect, "{}: nsa.select: expected up to {} on gpu, found {}", name, kMaxSelect,
           nsa.select);
  LS_CHECK(nsa.select_block / nsa.stride <= kMaxBlockCells,
           "{}: nsa.select_block: expected up to {} strides on gpu, found {} and a stride of {}", name, kMaxBlockCells,
           nsa.select_block, nsa.stride);
  SelectParams params = {};
  params.q = args.q.data;
  params.k = args.k.data;
  params.table = args.pages.table.As<const int32_t>();
  params.page_rows = static_cast<int>(args.pages.page_rows);
  params.lse = args.lse.As<const float>();
  params.selected = args.selected.As<int32_t>();
  params.scores = args.scores ? args.scores.As<float>() : nullptr;
  params.heads = static_cast<int>(args.q.dim(1));
  params.groups = static_cast<int>(args.k.dim(1));
  params.width = static_cast<int>(args.q.dim(2));
  params.scale_log2 = static_cast<float>(args.scale * 1.4426950408889634);
  params.cells = static_cast<int>(nsa.block / nsa.stride);
  params.block_cells = static_cast<int>(nsa.select_block / nsa.stride);
  params.select_block = static_cast<int>(nsa.select_block);
  params.select = static_cast<int>(nsa.select);
  params.init = static_cast<int>(nsa.init);
  params.local = static_cast<int>(nsa.local);
  params.sight.doc_start = args.doc_start ? args.doc_start.As<const int32_t>() : nullptr;
  params.sight.block = static_cast<int>(nsa.block);
  params.sight.stride = static_cast<int>(nsa.stride);
  params.queries = CutQueriesGpu(name, args.segments, kQueries);
  const double flops = 2.0 * CompressedPairs(args.segments, nsa.block, nsa.stride) * args.q.dim(1) * args.q.dim(2);
  LaunchGpu(stream, name, {flops, BytesOf({args.q, args.k, args.lse, args.selected, args.scores})},
            [&](cudaStream_t on) { RunSelect(on, dtype, params); });
}

void GpuAttention::HashSelection(Stream& stream, const HashSelectionArgs& args) {
  const char* const name = "attention.hash_selection";
  CheckHashSelection(OnGpu(name), args);
  const int64_t width = args.selected.dim(1) * args.selected.dim(2);
  auto* const hash = static_cast<unsigned long long*>(args.hash.data);
  LaunchGpu(stream, name, {0, BytesOf({args.selected})}, [&](cudaStream_t on) {
    CudaCheck(cudaMemsetAsync(hash, 0, sizeof(*hash), on), name);
    for (const Segment& segment : args.segments) {
      const int64_t count = segment.length * width;
      if (count == 0) continue;
      const int32_t* const selected = args.selected.As<const int32_t>() + segment.row * width;
      const auto blocks = static_cast<unsigned>(std::min<int64_t>((count + 255) / 256, 1024));
      HashKernel<<<blocks, 256, 0, on>>>(selected, segment.begin * width, count, hash);
    }
  });
}

}  // namespace longspan
