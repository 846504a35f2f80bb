// d_k and d_v of any branch in bf16. Adds to both, or writes partial results that SumParts adds.
//
// A block owns 64 keys of one group and walks over the queries that see them, 64 rows (queries x heads of the group) at
// a time, the next rows under way while these are used. The scores are computed transposed, 16 keys a warp, so that P
// and dS are operands of the products with d_o and q as they stand; d_k and d_v stay in registers. Who watches the keys
// is a range of positions (window, compressed) or a list (selected): RangeWatchers, ListedWatchers. Bound by shared
// memory's reads for the tensor cores.
#include "kernels/attention/sm80/kernels.cuh"
#include "kernels/attention/sm80/key_stage.cuh"

namespace longspan {
namespace {

constexpr int kKeys = kBackwardKeys;
constexpr int kRows = 64;
constexpr int kWarps = kKeys / 16;
constexpr int kThreads = kWarps * 32;
template <int KW>
constexpr int kStrip = KW > 128 ? 16 : 32;  // rows whose scores are in registers

template <int Width>
constexpr int kBlocks = Width <= 128   ? 3
                        : Width <= 256 ? 2
                                       : 1;  // on a multiprocessor, for their registers

template <int KW, int VW>
struct Memory {
  unsigned char keys[KeyStage<kKeys, KW, VW>::kBytes];
  struct Stage {
    Bf16 q[kRows * PaddedWidth(KW)];
    Bf16 d_o[kRows * PaddedWidth(VW)];
    float2 statistics[kRows];  // lse, delta
  } stage[2];
  // Of the rows in use, the rows under way and the rows after them.
  struct Sight {
    int row[kRows];  // of [T,H], -1 for none
    SpanGpu seen[kRows];
  } sight[3];
};

// What a block does: keys [first,end) of a group against numbers [first_query, end_query) of those who see any.
template <typename Watchers>
struct Item {
  int group, first, end;
  Watchers watchers;
  int first_query, end_query;
  int partial;  // where the result goes, -1 = it is the only one of its keys
};

__device__ Item<RangeWatchers> ItemOf(const BackwardParams<RangeSight>& params, const RangeWork& work) {
  const int tile = blockIdx.x, chunk = blockIdx.y;
  Item<RangeWatchers> item;
  item.group = blockIdx.z;
  item.first = tile * kKeys;
  item.end = min(item.first + kKeys, params.key_rows);
  item.watchers = WatchersOf(params, {}, item.group, {item.first, item.end});
  const int queries = item.watchers.Count(params);
  item.first_query = chunk * work.chunk;
  item.end_query = min(item.first_query + work.chunk, queries);
  item.partial = queries <= work.chunk ? -1 : (item.group * work.tiles + tile) * work.chunks + chunk;
  return item;
}

__device__ Item<ListedWatchers> ItemOf(const BackwardParams<SelectedSight>& params, const ListedWork& work) {
  Item<ListedWatchers> item = {};
  const int lists = params.groups * work.lists.blocks, number = blockIdx.x, tile = blockIdx.y;
  if (number >= work.first_item[lists]) return item;
  int low = 0, high = lists;  // the list: first_item[low] <= number < first_item[high]
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    (work.first_item[middle] <= number ? low : high) = middle;
  }
  const int block = low % work.lists.blocks, block_first = block * params.sight.block;
  item.group = low / work.lists.blocks;
  item.first = block_first + tile * kKeys;
  item.end = min(min(item.first + kKeys, block_first + params.sight.block), params.key_rows);
  if (item.first >= item.end) return item;
  const int chunk = number - work.first_item[low], chunks = work.first_item[low + 1] - work.first_item[low];
  item.watchers = WatchersOf(params, work.lists, item.group, {item.first, item.end});
  item.first_query = chunk * work.chunk;
  item.end_query = min(item.first_query + work.chunk, item.watchers.Count(params));
  item.partial = chunks == 1 ? -1 : (work.first_partial[low] + chunk) * work.tiles + tile;
  return item;
}

template <int KW, int VW, typename Sight, typename Work>
__global__ void __launch_bounds__(kThreads, kBlocks<KW + VW>)
    BackwardKeysKernel(const __grid_constant__ BackwardParams<Sight> params, const __grid_constant__ Work work) {
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<Memory<KW, VW>*>(shared);
  const auto item = ItemOf(params, work);
  if (item.first_query >= item.end_query) return;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int group_heads = params.group_heads(), tile_queries = kRows / group_heads;
  const int tiles = (item.end_query - item.first_query + tile_queries - 1) / tile_queries;

  // Row `threadIdx.x` of a tile: who it is takes one read from memory, which is asked for long before its use.
  const auto query_of = [&](int tile) {
    const int in_tile = threadIdx.x / group_heads, query = item.first_query + tile * tile_queries + in_tile;
    return in_tile < tile_queries && tile < tiles && query < item.end_query ? query : -1;
  };
  const auto ask = [&](int tile) {
    const int query = threadIdx.x < kRows ? query_of(tile) : -1;
    return query < 0 ? 0 : item.watchers.Ask(params, query);
  };
  const auto note = [&](int tile, int answer) {
    if (threadIdx.x >= kRows) return;
    const int query = query_of(tile);
    const Watcher watcher = query < 0 ? Watcher{-1, {0, 0}} : item.watchers.At(params, query, answer);
    const int head = item.group * group_heads + static_cast<int>(threadIdx.x) % group_heads;
    auto& sight = memory.sight[tile % 3];
    sight.row[threadIdx.x] = watcher.row < 0 ? -1 : watcher.row * params.heads + head;
    sight.seen[threadIdx.x] = watcher.seen;
  };
  const auto copy_rows = [&]<int W>(Bf16* to, const void* x, int width, const int* rows) {
    constexpr int kChunks = W / 8;
    for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
      const int row = rows[i / kChunks], channel = i % kChunks * 8;
      const bool valid = row >= 0 && channel < width;
      CopyAsync16(SharedAddress(to + i / kChunks * PaddedWidth(W) + channel),
                  static_cast<const Bf16*>(x) + (valid ? static_cast<int64_t>(row) * width + channel : 0), valid);
    }
  };
  const auto copy = [&](int tile) {
    auto& stage = memory.stage[tile % 2];
    const int* const rows = memory.sight[tile % 3].row;
    copy_rows.template operator()<KW>(stage.q, params.q, params.key_width, rows);
    copy_rows.template operator()<VW>(stage.d_o, params.d_o, params.value_width, rows);
    const int row = rows[threadIdx.x % kRows];
    const float* const from = threadIdx.x < kRows ? params.lse : params.delta;
    CopyAsync4(SharedAddress(&stage.statistics[threadIdx.x % kRows]) + threadIdx.x / kRows * 4, from + max(row, 0),
               row >= 0);
    CommitCopies();
  };
  static_assert(kThreads == 2 * kRows);

  const RowFinder finder(params.table, params.page_rows, item.first, kKeys);
  const uint32_t keys = SharedAddress(memory.keys), values = keys + KeyStage<kKeys, KW, VW>::kValuesAt;
  CopyKeys<kKeys, KW, VW>(keys, params, finder, 0, item.end - item.first, item.group, threadIdx.x, kThreads);
  note(0, ask(0));
  note(1, ask(1));
  __syncthreads();
  copy(0);

  const float scale_log2 = params.scale * CUDART_L2E_F;
  const uint32_t k_lane = LaneOfA<KW>(keys + warp * 16 * PaddedWidth(KW) * 2);
  const uint32_t v_lane = LaneOfA<VW>(values + warp * 16 * PaddedWidth(VW) * 2);
  const int key[2] = {item.first + warp * 16 + lane / 4, item.first + warp * 16 + lane / 4 + 8};
  float d_k[KW / 8][4], d_v[VW / 8][4];
  SetZero(d_k);
  SetZero(d_v);
  for (int tile = 0; tile < tiles; ++tile) {
    WaitForCopies<0>();
    __syncthreads();  // this tile is here, the next is noted, and nobody reads the one before any more
    if (tile + 1 < tiles) copy(tile + 1);
    const int answer = ask(tile + 2);
    const auto& stage = memory.stage[tile % 2];
    const SpanGpu* const seen = memory.sight[tile % 3].seen;
    const uint32_t q = SharedAddress(stage.q), d_o = SharedAddress(stage.d_o);
#pragma unroll 1
    for (int first = 0; first < kRows; first += kStrip<KW>) {
      const uint32_t q_strip = q + first * PaddedWidth(KW) * 2, d_o_strip = d_o + first * PaddedWidth(VW) * 2;
      float p[kStrip<KW> / 8][4], d_s[kStrip<KW> / 8][4];  // [keys, rows]
      TimesRows<KW>(k_lane, LaneOfRows<KW>(q_strip), p);
      TimesRows<VW>(v_lane, LaneOfRows<VW>(d_o_strip), d_s);
#pragma unroll
      for (int i = 0; i < kStrip<KW> / 8; ++i) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int row = first + i * 8 + lane % 4 * 2 + j;
          const float2 statistics = stage.statistics[row];
          const SpanGpu span = seen[row];
          const float lse_log2 = statistics.x * CUDART_L2E_F;
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            float& p_here = p[i][2 * m + j];
            float& d_s_here = d_s[i][2 * m + j];
            const bool sees = key[m] >= span.begin && key[m] < span.end;
            p_here = sees ? Exp2(p_here * scale_log2 - lse_log2) : 0.f;
            d_s_here = sees ? p_here * (d_s_here - statistics.y) : 0.f;
          }
        }
      }
      AddTimesColumns<VW>(p, LaneOfColumns<VW>(d_o_strip), d_v);
      AddTimesColumns<KW>(d_s, LaneOfColumns<KW>(q_strip), d_k);
    }
    note(tile + 2, answer);
  }

  float* const partial = work.partial + static_cast<int64_t>(max(item.partial, 0)) * kKeys * (KW + VW);
  const auto write = [&]<int W>(const float(&sum)[W / 8][4], float* d_x, int width, float factor, int offset) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const int row = warp * 16 + lane / 4 + m * 8;
      const int64_t place = item.partial < 0 && row < item.end - item.first ? finder.at(row) : -1;
#pragma unroll
      for (int i = 0; i < W / 8; ++i) {
        const int channel = i * 8 + lane % 4 * 2;
        const float2 value = make_float2(sum[i][2 * m], sum[i][2 * m + 1]);
        if (item.partial >= 0) {
          *reinterpret_cast<float2*>(partial + row * (KW + VW) + offset + channel) = value;
        } else if (place >= 0 && channel < width && d_x != nullptr) {
          float2* const to = reinterpret_cast<float2*>(d_x + (place * params.groups + item.group) * width + channel);
          const float2 old = *to;
          *to = make_float2(old.x + factor * value.x, old.y + factor * value.y);
        }
      }
    }
  };
  write.template operator()<KW>(d_k, params.d_k, params.key_width, params.scale, 0);
  write.template operator()<VW>(d_v, params.d_v, params.value_width, 1.f, KW);
}

// The results of a key tile: `parts` from number `partial` on, `step` apart.
struct Parts {
  int group, first, end, parts;
  int64_t partial, step;
};

__device__ Parts PartsOf(const BackwardParams<RangeSight>& params, const RangeWork& work) {
  Parts here;
  here.group = blockIdx.y;
  here.first = blockIdx.x * kKeys;
  here.end = min(here.first + kKeys, params.key_rows);
  const int queries = WatchersOf(params, {}, here.group, {here.first, here.end}).Count(params);
  here.parts = (queries + work.chunk - 1) / work.chunk;
  here.partial = static_cast<int64_t>(here.group * work.tiles + blockIdx.x) * work.chunks;
  here.step = 1;
  return here;
}

__device__ Parts PartsOf(const BackwardParams<SelectedSight>& params, const ListedWork& work) {
  Parts here;
  const int list = blockIdx.x, block_first = list % work.lists.blocks * params.sight.block;
  here.group = list / work.lists.blocks;
  here.first = block_first + blockIdx.y * kKeys;
  here.end = min(min(here.first + kKeys, block_first + params.sight.block), params.key_rows);
  here.parts = work.first_item[list + 1] - work.first_item[list];
  here.partial = static_cast<int64_t>(work.first_partial[list]) * work.tiles + blockIdx.y;
  here.step = work.tiles;
  return here;
}

// Adds the partial results of a key tile in the order of its items.
template <int KW, int VW, typename Sight, typename Work>
__global__ void SumPartsKernel(const __grid_constant__ BackwardParams<Sight> params,
                               const __grid_constant__ Work work) {
  const auto [group, first, end, parts, partial, step] = PartsOf(params, work);
  if (parts <= 1) return;
  const int key_width = params.key_width, width = key_width + params.value_width;
  for (int i = threadIdx.x; i < (end - first) * width; i += blockDim.x) {
    const int row = i / width, channel = i % width;
    const bool of_key = channel < key_width;
    float* const d_x = of_key ? params.d_k : params.d_v;
    const int64_t place = PageRow(params.table, params.page_rows, first + row);
    if (place < 0 || d_x == nullptr) continue;
    const float* from =
        work.partial + (partial * kKeys + row) * (KW + VW) + (of_key ? channel : KW + channel - key_width);
    float sum = 0;
    for (int part = 0; part < parts; ++part, from += step * kKeys * (KW + VW)) sum += *from;
    const int64_t to = (place * params.groups + group) * (of_key ? key_width : params.value_width);
    d_x[to + (of_key ? channel : channel - key_width)] += (of_key ? params.scale : 1.f) * sum;
  }
}

// `sums` is the grid that adds the partial results.
template <typename Sight, typename Work>
void Launch(cudaStream_t stream, const char* operation, const BackwardParams<Sight>& params, const Work& work,
            dim3 items, dim3 sums) {
  DispatchBackwardWidths(params.key_width, params.value_width, [&]<int KW, int VW>() {
    constexpr int kBytes = sizeof(Memory<KW, VW>);
    const auto kernel = BackwardKeysKernel<KW, VW, Sight, Work>;
    CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), operation);
    kernel<<<items, kThreads, kBytes, stream>>>(params, work);
    if (work.partial != nullptr) SumPartsKernel<KW, VW><<<sums, 256, 0, stream>>>(params, work);
  });
}

}  // namespace

int64_t PartBytes(int key_width, int value_width) {
  int64_t bytes = 0;
  DispatchBackwardWidths(key_width, value_width,
                         [&]<int KW, int VW>() { bytes = int64_t{kKeys} * (KW + VW) * sizeof(float); });
  return bytes;
}

void BackwardKeysSm80(cudaStream_t stream, const char* operation, const BackwardParams<RangeSight>& params,
                      const RangeWork& work) {
  Launch(stream, operation, params, work, dim3(work.tiles, work.chunks, params.groups),
         dim3(work.tiles, params.groups));
}

void BackwardKeysSm80(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params,
                      const ListedWork& work) {
  Launch(stream, operation, params, work, dim3(work.max_items, work.tiles),
         dim3(params.groups * work.lists.blocks, work.tiles));
}

}  // namespace longspan
