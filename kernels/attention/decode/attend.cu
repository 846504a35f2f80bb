// The branches of a step, split by split: the compressed branch and the window in one launch, the selected branch in
// another. A thread block takes one split of one query and up to 16 heads of a group; splits that a query is too short
// for end at once. Neighbouring blocks take the groups of the same rows, which lie side by side.
#include "kernels/attention/decode/early.cuh"
#include "kernels/attention/decode/params.cuh"

namespace longspan {
namespace {

// The part of this thread block.
struct Part {
  int number;  // of the query in the pass
  int2 query;  // entry, position
  int group, first_head;
};

__device__ __forceinline__ Part FindPart(const AttendParams& p) {
  const int number = blockIdx.z, parts = p.parts();
  return {number, p.step.queries[p.first_query + number], static_cast<int>(blockIdx.x) / parts,
          static_cast<int>(blockIdx.x) % parts * kSplitHeads};
}

template <typename T>
__device__ __forceinline__ SplitArgs<T> ArgsOf(const AttendParams& p, const Part& part, int branch, int split) {
  const int head = part.group * p.group_heads() + part.first_head;
  const int64_t row = static_cast<int64_t>(part.number) * p.heads + head;
  SplitArgs<T> args;
  args.q =
      static_cast<const T*>(p.q) + (static_cast<int64_t>(p.first_query + part.number) * p.heads + head) * p.key_width;
  args.k = static_cast<const T*>(p.k[branch]);
  args.v = static_cast<const T*>(p.v[branch]);
  args.heads = min(kSplitHeads, p.group_heads() - part.first_head);
  args.groups = p.groups;
  args.group = part.group;
  args.key_width = p.key_width;
  args.value_width = p.value_width;
  args.scale_log2 = p.scale_log2;
  args.begin = 0;
  args.o = p.o + (row * p.splits() + split) * p.value_width;
  args.max_sum = p.stats + row * p.splits() + split;
  args.head_stride = p.splits();
  return args;
}

// places[column] = place(column) for the columns that are seen, -1 up to the end of the last tile.
template <typename Place>
__device__ __forceinline__ void FillPlaces(int* places, int begin, int end, const Place& place) {
  const int tiles_end = (end + kTileRows - 1) / kTileRows * kTileRows;
  for (int column = threadIdx.x; column < tiles_end; column += kSplitThreads) {
    places[column] = column >= begin && column < end ? place(column) : -1;
  }
}

template <typename T, int KW, int VW>
__global__ void __launch_bounds__(kSplitThreads) AttendKernel(const __grid_constant__ AttendParams p) {
  extern __shared__ uint4 shared[];
  WaitForEarlier();
  auto& memory = *reinterpret_cast<SplitMemory<T, KW, VW>*>(shared);
  const Part part = FindPart(p);
  const int split = blockIdx.y, position = part.query.y, sequence = p.step.entries[part.query.x].x;
  const int32_t* const table = p.step.TableOf(part.query.x);

  if (split >= p.compressed_splits) {  // of the window
    const int in_window = split - p.compressed_splits;
    if (in_window >= p.WindowSplits(position)) return;
    const int first = max(position - p.window + 1, 0) + in_window * kSplitKeys;
    SplitArgs<T> args = ArgsOf<T>(p, part, 2, split);
    args.end = min(position + 1 - first, kSplitKeys);
    const PagesView pages = {table, p.ring_pages[2], sequence, p.select_block};
    FillPlaces(memory.places, 0, args.end, [&](int column) { return pages.RowOf(first + column); });
    AttendSplit<T, KW, VW>(args, memory, [] {});
    return;
  }
  if (split >= p.CompressedSplits(position)) return;
  const int first = split * p.split_rows, rows_end = p.RowsEnd(position);
  SplitArgs<T> args = ArgsOf<T>(p, part, 0, split);
  args.begin = max(p.lead - first, 0);
  args.end = min(rows_end - first, p.split_rows);
  const PagesView pages = {table, 0, 0, p.block_cells};
  FillPlaces(memory.places, args.begin, args.end, [&](int column) { return pages.RowOf(first + column); });
  AttendSplit<T, KW, VW>(args, memory, [&] {
    // The weights' sums for selection: a thread takes a block of tokens and a head. In the order of training's
    // selection but for the heads, which are added last.
    const int64_t row = static_cast<int64_t>(part.number) * p.groups + part.group;
    const int blocks = (args.end + p.block_cells - 1) / p.block_cells, first_block = first / p.block_cells;
    for (int i = threadIdx.x; i < blocks * kSplitHeads; i += kSplitThreads) {
      const int block = i / kSplitHeads, head = i % kSplitHeads, begin = block * p.block_cells;
      const int rows = min(p.block_cells + p.lead, args.end - begin);
      float sum = 0;
      for (int r = 0; r < rows; ++r) sum = fmaf(p.Cells(r), memory.scores[head][begin + r], sum);
      p.block_sums[(row * p.sum_blocks + first_block + block) * p.head_room() + part.first_head + head] = sum;
    }
    if (split == 0 || threadIdx.x >= kSplitHeads) return;
    float sum = 0;
    for (int r = 0; r < min(p.lead, args.end); ++r) {
      sum = fmaf(p.Cells(p.block_cells + r), memory.scores[threadIdx.x][r], sum);
    }
    p.first_sums[(row * p.compressed_splits + split) * p.head_room() + part.first_head + threadIdx.x] = sum;
  });
}

template <typename T, int KW, int VW>
__global__ void __launch_bounds__(kSplitThreads) SelectedKernel(const __grid_constant__ AttendParams p) {
  extern __shared__ uint4 shared[];
  WaitForEarlier();
  auto& memory = *reinterpret_cast<SplitMemory<T, KW, VW>*>(shared);
  const Part part = FindPart(p);
  const int split = blockIdx.y, position = part.query.y;
  if (split >= p.SelectedSplits(position)) return;
  const int own = position / p.select_block, first = split * p.split_blocks;
  const int blocks = min(p.split_blocks, min(own + 1, p.select) - first);
  const int32_t* const chosen =
      p.selected + (static_cast<int64_t>(p.first_query + part.number) * p.groups + part.group) * p.select + first;
  SplitArgs<T> args = ArgsOf<T>(p, part, 1, p.compressed_splits + p.window_splits + split);
  args.end = blocks * p.select_block;
  // Only the last of the list may be the query's own, which ends with it.
  if (chosen[blocks - 1] == own) args.end -= p.select_block - 1 - position % p.select_block;
  const PagesView pages = {p.step.TableOf(part.query.x), p.ring_pages[1], 0, p.select_block};
  FillPlaces(memory.places, 0, args.end, [&](int column) {
    const int block = column / p.select_block;
    return pages.RowOf(chosen[block] * p.select_block + column - block * p.select_block);
  });
  AttendSplit<T, KW, VW>(args, memory, [] {});
}

// Calls f.operator()<T, KW, VW>() with the narrowest that hold K and V.
template <typename F>
void DispatchSplit(DType dtype, int64_t key_width, int64_t value_width, const F& f) {
  DispatchFloatGpu(dtype, [&]<typename T>() {
    if (key_width <= 64 && value_width <= 64) {
      f.template operator()<T, 64, 64>();
    } else if (key_width <= 128) {
      f.template operator()<T, 128, 128>();
    } else {
      f.template operator()<T, kMaxSplitKeyWidth, kMaxSplitValueWidth>();
    }
  });
}

template <typename Memory>
void Launch(cudaStream_t stream, void (*kernel)(AttendParams), const AttendParams& params, int splits, int queries) {
  constexpr int kBytes = sizeof(Memory);
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "decode.attend");
  LaunchEarly(stream, kernel, dim3(params.groups * params.parts(), splits, queries), kSplitThreads, kBytes, params);
}

}  // namespace

int64_t SplitBytes(DType dtype, int64_t key_width, int64_t value_width) {
  int64_t bytes = 0;
  DispatchSplit(dtype, key_width, value_width,
                [&]<typename T, int KW, int VW>() { bytes = sizeof(SplitMemory<T, KW, VW>); });
  return bytes;
}

void LaunchAttendSplits(cudaStream_t stream, DType dtype, const AttendParams& params, int queries) {
  DispatchSplit(dtype, params.key_width, params.value_width, [&]<typename T, int KW, int VW>() {
    Launch<SplitMemory<T, KW, VW>>(stream, AttendKernel<T, KW, VW>, params,
                                   params.compressed_splits + params.window_splits, queries);
  });
}

void LaunchAttendSelected(cudaStream_t stream, DType dtype, const AttendParams& params, int queries) {
  DispatchSplit(dtype, params.key_width, params.value_width, [&]<typename T, int KW, int VW>() {
    Launch<SplitMemory<T, KW, VW>>(stream, SelectedKernel<T, KW, VW>, params, params.selected_splits, queries);
  });
}

}  // namespace longspan
