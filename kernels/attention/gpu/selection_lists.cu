// Turns the choice of the selected branch round by a counting sort. A warp owns a stretch of queries of one group and a
// counter of each of the group's blocks, in shared memory where they fit: it counts, the counters of all warps are
// summed in order, and then it writes each query's row where its blocks' counters say. Overwrites. Bound by the latency
// of the counters.
#include <algorithm>

#include "kernels/attention/gpu/selection_lists.cuh"

namespace longspan {
namespace {

constexpr int kScanThreads = 1024;
constexpr int kAtOnce = 8;                     // of what a thread reads one after another
constexpr int64_t kMaxCounterBytes = 1 << 17;  // of a warp's, in shared memory
constexpr int64_t kMinChunk = 1024;            // queries of a work item
constexpr int64_t kMaxPartialBytes = 1 << 28;  // of all partial results, unless they are few

// counts [stretches, lists]: of each list, the choices among a stretch. Filling: from the choices of the stretches
// before to those up to and with this one.
template <bool Fill>
__global__ void __launch_bounds__(32)
    WalkKernel(const __grid_constant__ BackwardParams<SelectedSight> params, int tokens, int blocks, bool in_shared,
               int32_t* counts, const int32_t* begin, int32_t* rows) {
  extern __shared__ int32_t shared[];
  const int lane = threadIdx.x, stretch = blockIdx.x, group = blockIdx.y;
  const int choices = params.sight.choices, first_list = group * blocks;
  int32_t* const result = counts + static_cast<int64_t>(stretch) * params.groups * blocks + first_list;
  int32_t* const own = in_shared ? shared : result;
  for (int i = lane; i < blocks; i += 32) own[i] = Fill ? begin[first_list + i] + result[i] : 0;
  __syncwarp();

  const int first_row = stretch * kStretch, reads = (choices + 31) / 32;  // of a query
  const int all_reads = (min(first_row + kStretch, tokens) - first_row) * reads;
  for (int first = 0; first < all_reads; first += kAtOnce) {
    int block[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int row = first_row + (first + i) / reads, choice = (first + i) % reads * 32 + lane;
      const bool there = first + i < all_reads && choice < choices && PositionOf(params.queries, row) >= 0;
      block[i] = there ? __ldg(params.sight.Chosen(row, params.groups, group) + choice) : -1;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (block[i] >= 0 && block[i] < blocks) {
        const int place = own[block[i]];
        own[block[i]] = place + 1;
        if (Fill) rows[place] = first_row + (first + i) / reads;
      }
      __syncwarp();  // blocks of one query differ; the next query's come after
    }
  }
  for (int i = lane; i < blocks; i += 32) result[i] = Fill ? own[i] - begin[first_list + i] : own[i];
}

// counts become the sums of the stretches before; totals[list] the whole.
__global__ void SumStretchesKernel(int32_t* counts, int stretches, int lists, int32_t* totals) {
  const int list = blockIdx.x * blockDim.x + threadIdx.x;
  if (list >= lists) return;
  int sum = 0;
  for (int first = 0; first < stretches; first += kAtOnce) {
    int32_t* const from = counts + static_cast<int64_t>(first) * lists + list;
    int here[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) here[i] = first + i < stretches ? from[static_cast<int64_t>(i) * lists] : 0;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i < stretches) from[static_cast<int64_t>(i) * lists] = sum;
      sum += here[i];
    }
  }
  totals[list] = sum;
}

struct Sums {
  int entries, items, parts;
};

__device__ Sums operator+(const Sums& a, const Sums& b) {
  return {a.entries + b.entries, a.items + b.items, a.parts + b.parts};
}

__device__ Sums SumsOf(int count, int chunk) {
  const int items = (count + chunk - 1) / chunk;
  return {count, items, items > 1 ? items : 0};
}

// begin, first_item, first_partial [lists+1] from the lists' lengths, which stand in `begin`. One block.
__global__ void __launch_bounds__(kScanThreads)
    ScanListsKernel(int lists, int chunk, int32_t* begin, int32_t* first_item, int32_t* first_partial) {
  __shared__ Sums sums[kScanThreads];
  const int per_thread = (lists + kScanThreads - 1) / kScanThreads;
  const int first = min(static_cast<int>(threadIdx.x) * per_thread, lists), end = min(first + per_thread, lists);
  Sums own = {0, 0, 0};
  for (int i = first; i < end; ++i) own = own + SumsOf(begin[i], chunk);
  sums[threadIdx.x] = own;
  __syncthreads();
  for (int step = 1; step < kScanThreads; step *= 2) {
    const Sums before = static_cast<int>(threadIdx.x) >= step ? sums[threadIdx.x - step] : Sums{0, 0, 0};
    __syncthreads();
    sums[threadIdx.x] = sums[threadIdx.x] + before;
    __syncthreads();
  }
  Sums running = threadIdx.x == 0 ? Sums{0, 0, 0} : sums[threadIdx.x - 1];
  const auto write = [&](int i) {
    begin[i] = running.entries;
    first_item[i] = running.items;
    first_partial[i] = running.parts;
  };
  for (int i = first; i < end; ++i) {
    const Sums here = SumsOf(begin[i], chunk);
    write(i);
    running = running + here;
  }
  if (threadIdx.x == kScanThreads - 1) {
    running = sums[kScanThreads - 1];
    write(lists);
  }
}

}  // namespace

SelectionListsPlan::SelectionListsPlan(const BackwardParams<SelectedSight>& params, int64_t tile_keys,
                                       int64_t part_bytes)
    : tokens_(params.tokens) {
  const int64_t block = params.sight.block;
  entries_ = tokens_ * params.groups * params.sight.choices;
  lists_ = params.groups * CeilDiv(params.key_rows, block);
  tiles_ = CeilDiv(std::min<int64_t>(block, params.key_rows), tile_keys);
  // A list of n > chunk entries has at most 2 n / chunk items.
  chunk_ = part_bytes == 0 ? INT32_MAX / 2
                           : std::max(kMinChunk, CeilDiv(2 * entries_ * tiles_ * part_bytes, kMaxPartialBytes));
  max_parts_ = 2 * entries_ / chunk_;
  counts_at_ = cut_.Add(CeilDiv(tokens_, kStretch) * lists_ * 4);
  rows_at_ = cut_.Add(entries_ * 4);
  begin_at_ = cut_.Add((lists_ + 1) * 4);
  item_at_ = cut_.Add((lists_ + 1) * 4);
  partial_index_at_ = cut_.Add((lists_ + 1) * 4);
  partial_at_ = cut_.Add(max_parts_ * tiles_ * part_bytes);
}

ListedWork SelectionListsPlan::Build(cudaStream_t stream, const char* operation,
                                     const BackwardParams<SelectedSight>& params, unsigned char* scratch) const {
  LS_CHECK(entries_ < INT32_MAX && lists_ < INT32_MAX,
           "{}: selected: expected fewer than 2^31 entries on a GPU, found {}", operation, entries_);
  const int lists = static_cast<int>(lists_), blocks = lists / params.groups, tokens = static_cast<int>(tokens_);
  const int stretches = static_cast<int>(CeilDiv(tokens_, kStretch));
  int32_t* const counts = reinterpret_cast<int32_t*>(scratch + counts_at_);
  int32_t* const rows = reinterpret_cast<int32_t*>(scratch + rows_at_);
  int32_t* const begin = reinterpret_cast<int32_t*>(scratch + begin_at_);
  int32_t* const first_item = reinterpret_cast<int32_t*>(scratch + item_at_);
  int32_t* const first_partial = reinterpret_cast<int32_t*>(scratch + partial_index_at_);
  const dim3 grid(stretches, params.groups);
  const bool in_shared = blocks * int64_t{4} <= kMaxCounterBytes;
  const int counter_bytes = in_shared ? blocks * 4 : 0;
  for (auto* const walk : {WalkKernel<false>, WalkKernel<true>}) {
    CudaCheck(cudaFuncSetAttribute(walk, cudaFuncAttributeMaxDynamicSharedMemorySize, counter_bytes), operation);
  }
  WalkKernel<false><<<grid, 32, counter_bytes, stream>>>(params, tokens, blocks, in_shared, counts, nullptr, nullptr);
  SumStretchesKernel<<<GridFor(lists, 64), 64, 0, stream>>>(counts, stretches, lists, begin);
  ScanListsKernel<<<1, kScanThreads, 0, stream>>>(lists, static_cast<int>(chunk_), begin, first_item, first_partial);
  WalkKernel<true><<<grid, 32, counter_bytes, stream>>>(params, tokens, blocks, in_shared, counts, begin, rows);

  ListedWork work;
  work.chunk = static_cast<int>(chunk_);
  work.tiles = static_cast<int>(tiles_);
  work.partial = max_parts_ > 0 ? reinterpret_cast<float*>(scratch + partial_at_) : nullptr;
  work.lists = {rows, begin, counts, blocks};
  work.first_item = first_item;
  work.first_partial = first_partial;
  work.max_items = static_cast<int>(lists_ + entries_ / chunk_);
  return work;
}

}  // namespace longspan
