// The choice of blocks of a step: a thread block takes a query and group. Sums of the splits' weights become the scores
// of blocks, sums over the group's heads of probabilities; the smallest score that is chosen is found bit by bit.
//
// The rule is training's (gpu/contest.cuh). Scores differ from training's in the last bits, as here a split's weights
// are summed before they meet the softmax's sum. Bound by latency.
#include "kernels/attention/decode/early.cuh"
#include "kernels/attention/decode/params.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 256;

// Higher is better; NaN is last.
__device__ unsigned RankOf(float score) {
  if (!(score >= 0)) return 0;
  return (score < 1.17549435e-38f ? 0u : __float_as_uint(score)) + 1;  // denormals are 0, as exponentials' are
}

// How many threads before this one, and how many in all, have `flag`; by a whole block.
__device__ int2 CountBefore(bool flag) {
  __shared__ int sums[kThreads / kWarp];
  const unsigned ballot = __ballot_sync(kAllLanes, flag);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  __syncthreads();
  if (lane == 0) sums[warp] = __popc(ballot);
  __syncthreads();
  int2 count = make_int2(__popc(ballot & ((1u << lane) - 1)), 0);
  for (int i = 0; i < kThreads / kWarp; ++i) {
    if (i < warp) count.x += sums[i];
    count.y += sums[i];
  }
  return count;
}

__global__ void __launch_bounds__(kThreads) SelectKernel(const __grid_constant__ AttendParams p) {
  extern __shared__ uint4 shared[];
  WaitForEarlier();
  const int number = blockIdx.y, group = blockIdx.x, position = p.step.queries[p.first_query + number].y;
  int32_t* const selected = p.selected + (static_cast<int64_t>(p.first_query + number) * p.groups + group) * p.select;
  const int own = position / p.select_block, tid = threadIdx.x;
  if (own + 1 <= p.select) {
    for (int i = tid; i < p.select; i += kThreads) selected[i] = i <= own ? i : -1;
    return;
  }
  const int init_end = p.init, local_begin = own + 1 - p.local;  // between them all is contested
  const int capacity = p.select - p.init - p.local;
  for (int i = tid; i < p.init; i += kThreads) selected[i] = i;
  for (int i = tid; i < p.local; i += kThreads) selected[p.select - p.local + i] = local_begin + i;
  if (capacity == 0) return;

  const int splits = p.CompressedSplits(position), room = p.head_room(), group_heads = p.group_heads();
  auto* const factors = reinterpret_cast<float*>(shared);                                 // [splits, room]
  auto* const ranks = reinterpret_cast<unsigned*>(factors + p.compressed_splits * room);  // of contested blocks

  // A split's weights times this are probabilities.
  for (int head = tid; head < room; head += kThreads) {
    const bool there = head < group_heads;
    const float2* const stats =
        p.stats + (static_cast<int64_t>(number) * p.heads + group * group_heads + (there ? head : 0)) * p.splits();
    float largest = -CUDART_INF_F, sum = 0;
    for (int s = 0; s < splits; ++s) largest = fmaxf(largest, stats[s].x);
    for (int s = 0; s < splits; ++s) sum += stats[s].y * Exp2(stats[s].x - largest);
    for (int s = 0; s < splits; ++s) factors[s * room + head] = there ? Exp2(stats[s].x - largest) / sum : 0;
  }
  __syncthreads();

  const int64_t row = static_cast<int64_t>(number) * p.groups + group;
  const int rows_end = splits > 0 ? p.RowsEnd(position) : 0, split_blocks = p.split_rows / p.block_cells;
  const int contested = local_begin - init_end;
  for (int i = tid; i < contested; i += kThreads) {
    const int block = init_end + i, split = block / split_blocks;
    float score = 0;
    const auto add = [&](const float* sums, int of) {
      const float* const factor = factors + of * room;
      for (int head = 0; head < room; head += 4) {
        const float4 f = *reinterpret_cast<const float4*>(factor + head);
        const float4 x = *reinterpret_cast<const float4*>(sums + head);
        score = fmaf(f.w, x.w, fmaf(f.z, x.z, fmaf(f.y, x.y, fmaf(f.x, x.x, score))));
      }
    };
    if (block * p.block_cells < rows_end) add(p.block_sums + (row * p.sum_blocks + block) * room, split);
    if (p.lead > 0 && block % split_blocks == split_blocks - 1 && split + 1 < splits) {
      add(p.first_sums + (row * p.compressed_splits + split + 1) * room, split + 1);
    }
    ranks[i] = RankOf(score);
  }
  __syncthreads();

  // The largest rank that `capacity` blocks reach.
  unsigned threshold = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const unsigned candidate = threshold | 1u << bit;
    int count = 0;
    for (int i = tid; i < contested; i += kThreads) count += ranks[i] >= candidate;
    count = __reduce_add_sync(kAllLanes, count);
    __shared__ int counts[2][kThreads / kWarp];
    if (tid % kWarp == 0) counts[bit % 2][tid / kWarp] = count;
    __syncthreads();
    int total = 0;
    for (int i = 0; i < kThreads / kWarp; ++i) total += counts[bit % 2][i];
    if (total >= capacity) threshold = candidate;
  }
  // Those above it, and of those at it the first: ascending.
  int above = 0;
  for (int i = tid; i < contested; i += kThreads) above += ranks[i] > threshold;
  __shared__ int all_above;
  if (tid == 0) all_above = 0;
  __syncthreads();
  above = __reduce_add_sync(kAllLanes, above);
  if (tid % kWarp == 0) atomicAdd(&all_above, above);
  __syncthreads();
  int ties_left = capacity - all_above, written = p.init;
  for (int begin = 0; begin < contested; begin += kThreads) {
    const unsigned rank = begin + tid < contested ? ranks[begin + tid] : 0;
    const bool there = begin + tid < contested;
    const int2 ties = CountBefore(there && rank == threshold);
    const bool take = there && (rank > threshold || (rank == threshold && ties.x < ties_left));
    const int2 taken = CountBefore(take);
    if (take) selected[written + taken.x] = init_end + begin + tid;
    written += taken.y;
    ties_left -= min(ties_left, ties.y);
  }
}

}  // namespace

void LaunchDecodeSelect(cudaStream_t stream, const AttendParams& params, int queries) {
  const int bytes =
      (params.compressed_splits * params.head_room() + params.sum_blocks) * static_cast<int>(sizeof(float));
  CudaCheck(cudaFuncSetAttribute(SelectKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "decode.select");
  LaunchEarly(stream, SelectKernel, dim3(params.groups, queries), kThreads, bytes, params);
}

}  // namespace longspan
