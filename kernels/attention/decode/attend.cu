// The branches of a step, split by split, in three launches: the compressed branch; the choice of blocks beside the
// window; the selected branch. A thread block takes one split of one query and up to 16 heads of a group; splits that a
// query is too short for end at once. Neighbouring blocks take the groups of the same rows, which lie side by side.
#include <algorithm>

#include "kernels/attention/decode/select.cuh"

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

template <typename T, int KW, int VW>
__global__ void __launch_bounds__(kSplitThreads) CompressedKernel(const __grid_constant__ AttendParams p) {
  extern __shared__ uint4 shared[];
  auto& memory = *reinterpret_cast<SplitMemory<T, KW, VW>*>(shared);
  const Part part = FindPart(p);
  const int split = blockIdx.y, position = part.query.y;
  if (split >= p.CompressedSplits(position)) return;
  const int first = split * p.split_rows, rows_end = p.RowsEnd(position);
  SplitArgs<T> args = ArgsOf<T>(p, part, 0, split);
  args.begin = max(p.lead - first, 0);
  args.end = min(rows_end - first, p.split_rows);
  const PagesView pages = {p.step.TableOf(part.query.x), 0, 0, p.block_cells};
  const auto place = [&](int column) { return pages.RowOf(first + column); };
  AttendSplit<T, KW, VW>(args, memory, place, [&] {
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

// The choice of blocks waits for memory most of the time: the window goes beside it.
template <typename T, int KW, int VW>
__global__ void __launch_bounds__(kSplitThreads) SelectAndWindowKernel(const __grid_constant__ AttendParams p) {
  extern __shared__ uint4 shared[];
  const Part part = FindPart(p);
  const int position = part.query.y, split = static_cast<int>(blockIdx.y) - 1;
  if (split < 0) {
    if (part.first_head == 0) SelectBlocks(p, part.number, part.group, position, shared);
    return;
  }
  if (split >= p.WindowSplits(position)) return;
  auto& memory = *reinterpret_cast<SplitMemory<T, KW, VW>*>(shared);
  const int first = max(position - p.window + 1, 0) + split * kSplitKeys;
  SplitArgs<T> args = ArgsOf<T>(p, part, 2, p.compressed_splits + split);
  args.end = min(position + 1 - first, kSplitKeys);
  const PagesView pages = {p.step.TableOf(part.query.x), p.ring_pages[2], p.step.entries[part.query.x].x,
                           p.select_block};
  AttendSplit<T, KW, VW>(
      args, memory, [&](int column) { return pages.RowOf(first + column); }, [] {});
}

template <typename T, int KW, int VW>
__global__ void __launch_bounds__(kSplitThreads) SelectedKernel(const __grid_constant__ AttendParams p) {
  extern __shared__ uint4 shared[];
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
  const auto place = [&](int column) {
    const int block = column / p.select_block;
    return pages.RowOf(chosen[block] * p.select_block + column - block * p.select_block);
  };
  AttendSplit<T, KW, VW>(args, memory, place, [] {});
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

void Launch(cudaStream_t stream, void (*kernel)(AttendParams), const AttendParams& params, int splits, int queries,
            int64_t bytes) {
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
            "decode.attend");
  kernel<<<dim3(params.groups * params.parts(), splits, queries), kSplitThreads, bytes, stream>>>(params);
}

}  // namespace

int64_t SplitBytes(DType dtype, int64_t key_width, int64_t value_width) {
  int64_t bytes = 0;
  DispatchSplit(dtype, key_width, value_width,
                [&]<typename T, int KW, int VW>() { bytes = sizeof(SplitMemory<T, KW, VW>); });
  return bytes;
}

void LaunchAttend(cudaStream_t stream, DType dtype, const AttendParams& params, int queries) {
  const int64_t bytes = SplitBytes(dtype, params.key_width, params.value_width);
  DispatchSplit(dtype, params.key_width, params.value_width, [&]<typename T, int KW, int VW>() {
    Launch(stream, CompressedKernel<T, KW, VW>, params, params.compressed_splits, queries, bytes);
    Launch(stream, SelectAndWindowKernel<T, KW, VW>, params, 1 + params.window_splits, queries,
           std::max(bytes, SelectBytes(params)));
    Launch(stream, SelectedKernel<T, KW, VW>, params, params.selected_splits, queries, bytes);
  });
}

}  // namespace longspan
