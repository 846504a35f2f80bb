// Cuts the lists of selection_lists in items of work: a block has a group's lists in a segment of the queries, counts
// their items, then writes them after those of the blocks before. Overwrites. Bound by the latency of the lists' ends.
#include <algorithm>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "kernels/attention/sm90/selected_items.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kSegment = 4096;  // queries, whose q and d_o of one group, 8 KiB each, the cache should hold
constexpr int64_t kEntries = 64;    // of a list in a segment, on average, that pay for its keys' way
constexpr int64_t kMinEntries = 256, kMaxEntries = 512;  // of an item at most: few in a short sequence
constexpr int64_t kItems = 2048;                         // that keep a GPU busy evenly to the end

// How stretches are cut in segments and a list's entries of a segment in items.
struct ItemCut {
  int stretches, stretches_of_segment;
  int most, step;  // entries of an item, of a step in it
};

// The lists of a group at the choices of a segment of queries: the block's part in a grid of [segments, groups].
struct Row {
  const SelectionLists& lists;
  int most, step;
  int group, begin, end, all_lists;  // stretches [begin, end)

  __device__ Row(const SelectionLists& lists, const ItemCut& cut)
      : lists(lists),
        most(cut.most),
        step(cut.step),
        group(blockIdx.y),
        begin(blockIdx.x * cut.stretches_of_segment),
        end(min(begin + cut.stretches_of_segment, cut.stretches)),
        all_lists(gridDim.y * lists.blocks) {}

  // Entries of a block's list before the segment, and up to and with it.
  __device__ int2 Entries(int block) const {
    const auto up_to = [&](int stretch) {
      return stretch == 0 ? 0
                          : lists.ends[static_cast<int64_t>(stretch - 1) * all_lists + group * lists.blocks + block];
    };
    return {up_to(begin), up_to(end)};
  }
  // Of each of a list's items, as alike as whole steps can be: they begin one after another and should end so.
  __device__ int ItemSize(int entries) const {
    const int items = max(1, (entries + most - 1) / most), even = (entries + items - 1) / items;
    return max(1, (even + step - 1) / step) * step;
  }
  __device__ int Items(int entries) const {
    const int size = ItemSize(entries);
    return (entries + size - 1) / size;
  }
};

// row_items [groups, segments]
__global__ void __launch_bounds__(kThreads)
    CountItemsKernel(const __grid_constant__ SelectionLists lists, ItemCut cut, int32_t* row_items) {
  using Reduce = cub::BlockReduce<int, kThreads>;
  __shared__ typename Reduce::TempStorage storage;
  const Row row(lists, cut);
  int own = 0;
  for (int block = threadIdx.x; block < lists.blocks; block += kThreads) {
    const int2 entries = row.Entries(block);
    own += row.Items(entries.y - entries.x);
  }
  const int sum = Reduce(storage).Sum(own);
  if (threadIdx.x == 0) row_items[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// The items of a row after those of the rows before; the last row knows how many there are.
__global__ void __launch_bounds__(kThreads)
    WriteItemsKernel(const __grid_constant__ SelectionLists lists, ItemCut cut, const int32_t* row_items,
                     ListItem* items, int32_t* count) {
  using Scan = cub::BlockScan<int, kThreads>;
  __shared__ typename Scan::TempStorage storage;
  const Row row(lists, cut);
  const int number = blockIdx.y * gridDim.x + blockIdx.x;
  int own = 0, rank, place;
  for (int i = threadIdx.x; i < number; i += kThreads) own += row_items[i];
  Scan(storage).ExclusiveSum(own, rank, place);
  for (int first = 0; first < lists.blocks; first += kThreads) {
    const int block = first + threadIdx.x, list = row.group * lists.blocks + block;
    const int2 entries = block < lists.blocks ? row.Entries(block) : int2{0, 0};
    const int size = row.ItemSize(entries.y - entries.x);
    int here;
    __syncthreads();
    Scan(storage).ExclusiveSum(row.Items(entries.y - entries.x), rank, here);
    for (int before = entries.x; before < entries.y; before += size, ++rank) {
      items[place + rank] = {lists.begin[list] + before, min(size, entries.y - before), list, before};
    }
    place += here;
  }
  if (threadIdx.x == 0 && number == static_cast<int>(gridDim.x * gridDim.y) - 1) *count = place;
}

}  // namespace

ListItemsPlan::ListItemsPlan(const BackwardParams<SelectedSight>& params, int tile_keys, int done_of_target, int step)
    : lists_(params, tile_keys, 0), step_(step) {
  const int64_t block = params.sight.block, blocks = CeilDiv(params.key_rows, block);
  const int64_t entries = int64_t{params.tokens} * params.groups * params.sight.choices;
  const int64_t queries = std::max(kSegment, kEntries * blocks / params.sight.choices);
  stretches_ = static_cast<int>(CeilDiv(params.tokens, kStretch));
  stretches_of_segment_ = static_cast<int>(std::min<int64_t>(CeilDiv(queries, kStretch), stretches_));
  segments_ = static_cast<int>(CeilDiv(stretches_, stretches_of_segment_));
  tiles_ = static_cast<int>(CeilDiv(std::min<int64_t>(block, params.key_rows), tile_keys));
  most_ = static_cast<int>(std::clamp(entries / kItems, kMinEntries, kMaxEntries));
  max_items_ = std::min(entries, params.groups * blocks * segments_ + entries / most_);
  zero_bytes_ = (1 + params.groups * blocks * tiles_ * done_of_target) * 4;
  cut_.Add(lists_.scratch_bytes());
  items_at_ = cut_.Add(max_items_ * static_cast<int64_t>(sizeof(ListItem)));
  row_items_at_ = cut_.Add((int64_t{params.groups} * segments_ + 1) * 4);
  zeros_at_ = cut_.Add(zero_bytes_);
}

ListItems ListItemsPlan::Build(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params,
                               unsigned char* scratch) const {
  LS_CHECK(max_items_ * tiles_ < INT32_MAX / 2, "{}: selected: expected fewer than 2^30 work items, found {}",
           operation, max_items_ * tiles_);
  ListItems work;
  work.lists = lists_.Build(stream, operation, params, scratch).lists;
  work.tiles = tiles_;
  auto* const items = reinterpret_cast<ListItem*>(scratch + items_at_);
  auto* const row_items = reinterpret_cast<int32_t*>(scratch + row_items_at_);
  int32_t* const count = row_items + int64_t{params.groups} * segments_;
  work.items = items;
  work.count = count;
  work.ticket = reinterpret_cast<int32_t*>(scratch + zeros_at_);
  work.done = reinterpret_cast<unsigned*>(work.ticket + 1);
  CudaCheck(cudaMemsetAsync(work.ticket, 0, zero_bytes_, stream), operation);
  const dim3 rows(segments_, params.groups);
  const ItemCut cut = {stretches_, stretches_of_segment_, most_, step_};
  CountItemsKernel<<<rows, kThreads, 0, stream>>>(work.lists, cut, row_items);
  WriteItemsKernel<<<rows, kThreads, 0, stream>>>(work.lists, cut, row_items, items, count);
  return work;
}

}  // namespace longspan
