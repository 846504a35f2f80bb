// d_k and d_v of any branch in bf16. Adds to both, or writes partial results that SumParts adds.
//
// A block owns 64 keys of one group and walks over the queries that see them, 64 rows (queries x heads of the group) at
// a time, the next rows under way while these are used. The scores are computed transposed, 16 keys a warp, so that P
// and dS are operands of the products with d_o and q as they stand; d_k and d_v stay in registers. Who watches the keys
// is a range of positions (window, compressed) or a list (selected). Bound by shared memory's reads for the tensor
// cores.
#include "kernels/attention/sm80/backward_warp.cuh"

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
  Bf16 k[kKeys * PaddedWidth(KW)];
  Bf16 v[kKeys * PaddedWidth(VW)];
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

// What a block does: keys [first,end) of a group against queries [first_query, end_query) of those who may see them.
struct Item {
  int group, first, end;
  SpanGpu watchers;     // positions, or
  const int32_t* list;  // local rows
  int first_query, end_query;
  int partial;  // where the result goes, -1 = it is the only one of its keys
};

__device__ Item RangeItem(const BackwardParams& params, const KeyWork& work) {
  const int tile = blockIdx.x, chunk = blockIdx.y;
  Item item;
  item.group = blockIdx.z;
  item.first = tile * kKeys;
  item.end = min(item.first + kKeys, params.key_rows);
  item.watchers = Watchers(params, item.first, item.end);
  item.list = nullptr;
  const int queries = CountQueries(params.queries, item.watchers);
  item.first_query = chunk * work.chunk;
  item.end_query = min(item.first_query + work.chunk, queries);
  item.partial = queries <= work.chunk ? -1 : (item.group * work.tiles + tile) * work.chunks + chunk;
  return item;
}

__device__ Item ListItem(const BackwardParams& params, const KeyWork& work) {
  Item item = {};
  const int lists = params.groups * work.lists.blocks, number = blockIdx.x, tile = blockIdx.y;
  if (number >= work.first_item[lists]) return item;
  int low = 0, high = lists;  // the list: first_item[low] <= number < first_item[high]
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    (work.first_item[middle] <= number ? low : high) = middle;
  }
  const int block = low % work.lists.blocks, block_first = block * params.sight.select_block;
  item.group = low / work.lists.blocks;
  item.first = block_first + tile * kKeys;
  item.end = min(min(item.first + kKeys, block_first + params.sight.select_block), params.key_rows);
  if (item.first >= item.end) return item;
  const int chunk = number - work.first_item[low], chunks = work.first_item[low + 1] - work.first_item[low];
  item.list = work.lists.rows + work.lists.begin[low];
  item.first_query = chunk * work.chunk;
  item.end_query = min(item.first_query + work.chunk, work.lists.begin[low + 1] - work.lists.begin[low]);
  item.partial = chunks == 1 ? -1 : (work.first_partial[low] + chunk) * work.tiles + tile;
  return item;
}

template <int KW, int VW>
__global__ void __launch_bounds__(kThreads, kBlocks<KW + VW>)
    BackwardKeysKernel(const __grid_constant__ BackwardParams params, const __grid_constant__ KeyWork work) {
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<Memory<KW, VW>*>(shared);
  const bool listed = params.sight.selected != nullptr;
  const Item item = listed ? ListItem(params, work) : RangeItem(params, work);
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
    if (query < 0) return 0;
    return listed ? item.list[query] : DocStart(params.sight, QueryAt(params.queries, item.watchers, query).position);
  };
  const auto note = [&](int tile, int answer) {
    if (threadIdx.x >= kRows) return;
    const int query = query_of(tile);
    int row = -1;
    SpanGpu seen = {0, 0};
    if (query >= 0 && listed) {
      row = answer;
      seen = {item.first, min(item.end, PositionOf(params.queries, row) + 1)};
    } else if (query >= 0) {
      const QueryGpu watcher = QueryAt(params.queries, item.watchers, query);
      row = watcher.row;
      seen = SeenSpan(params.sight, watcher.position, answer);
    }
    auto& sight = memory.sight[tile % 3];
    sight.row[threadIdx.x] =
        row < 0 ? -1 : row * params.heads + item.group * group_heads + static_cast<int>(threadIdx.x) % group_heads;
    sight.seen[threadIdx.x] = seen;
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
  CopyTile<kKeys, KW>(SharedAddress(memory.k), static_cast<const Bf16*>(params.k), finder, 0, item.end - item.first,
                      params.groups, item.group, params.key_width, threadIdx.x, kThreads);
  CopyTile<kKeys, VW>(SharedAddress(memory.v), static_cast<const Bf16*>(params.v), finder, 0, item.end - item.first,
                      params.groups, item.group, params.value_width, threadIdx.x, kThreads);
  note(0, ask(0));
  note(1, ask(1));
  __syncthreads();
  copy(0);

  const float scale_log2 = params.scale * CUDART_L2E_F;
  const uint32_t k_lane = LaneOfA<KW>(SharedAddress(memory.k + warp * 16 * PaddedWidth(KW)));
  const uint32_t v_lane = LaneOfA<VW>(SharedAddress(memory.v + warp * 16 * PaddedWidth(VW)));
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

// Adds the partial results of a key tile in the order of its items.
template <int KW, int VW>
__global__ void SumPartsKernel(const __grid_constant__ BackwardParams params, const __grid_constant__ KeyWork work) {
  int group, first, end, parts;
  int64_t partial, step;
  if (params.sight.selected != nullptr) {
    const int list = blockIdx.x, block_first = list % work.lists.blocks * params.sight.select_block;
    group = list / work.lists.blocks;
    first = block_first + blockIdx.y * kKeys;
    end = min(min(first + kKeys, block_first + params.sight.select_block), params.key_rows);
    parts = work.first_item[list + 1] - work.first_item[list];
    partial = static_cast<int64_t>(work.first_partial[list]) * work.tiles + blockIdx.y;
    step = work.tiles;
  } else {
    group = blockIdx.y;
    first = blockIdx.x * kKeys;
    end = min(first + kKeys, params.key_rows);
    parts = (CountQueries(params.queries, Watchers(params, first, end)) + work.chunk - 1) / work.chunk;
    partial = static_cast<int64_t>(group * work.tiles + blockIdx.x) * work.chunks;
    step = 1;
  }
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

}  // namespace

void BackwardKeysBf16(cudaStream_t stream, const char* operation, const BackwardParams& params, const KeyWork& work) {
  const bool listed = params.sight.selected != nullptr;
  DispatchBackwardWidths(params, [&]<int KW, int VW>() {
    constexpr int kBytes = sizeof(Memory<KW, VW>);
    CudaCheck(cudaFuncSetAttribute(BackwardKeysKernel<KW, VW>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
              operation);
    const dim3 grid = listed ? dim3(work.max_items, work.tiles) : dim3(work.tiles, work.chunks, params.groups);
    BackwardKeysKernel<KW, VW><<<grid, kThreads, kBytes, stream>>>(params, work);
    const dim3 sums = listed ? dim3(params.groups * work.lists.blocks, work.tiles) : dim3(work.tiles, params.groups);
    if (work.partial != nullptr) SumPartsKernel<KW, VW><<<sums, 256, 0, stream>>>(params, work);
  });
}

}  // namespace longspan
