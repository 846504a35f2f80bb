// Keys on their way to the tensor cores: tiles of K and V in shared memory, and how the blocks and warps of the
// branches' kernels walk over them.
#pragma once

#include "kernels/attention/sm80/warp_tiles.cuh"

namespace longspan {

// A tile of K and V, one of the places that copies go to in turn.
template <int Keys, int KW, int VW>
struct KeyStage {
  static constexpr uint32_t kBytes = Keys * (PaddedWidth(KW) + PaddedWidth(VW)) * sizeof(Bf16);
  static constexpr uint32_t kValuesAt = Keys * PaddedWidth(KW) * sizeof(Bf16);  // K [Keys,..], then V [Keys,..]
};

// Threads `thread` of `threads` copy Rows rows of W padded channels, of which `width` count, to `shared`
// [Rows, PaddedWidth(W)]: row i from x[rows.at(i), group, :] for first <= i < end, zeros elsewhere.
template <int Rows, int W, typename Finder>
__device__ __forceinline__ void CopyTile(uint32_t shared, const Bf16* x, const Finder& rows, int first, int end,
                                         int groups, int group, int width, int thread, int threads) {
  constexpr int kChunks = W / 8;
  for (int i = thread; i < Rows * kChunks; i += threads) {
    const int row = i / kChunks, channel = i % kChunks * 8;
    int64_t from = -1;
    if (row >= first && row < end && channel < width) from = rows.at(row);
    CopyAsync16(shared + (row * PaddedWidth(W) + channel) * 2,
                from < 0 ? x : x + (from * groups + group) * width + channel, from >= 0);
  }
}

// The same of K and V, to the KeyStage at `shared`.
template <int Keys, int KW, int VW, typename Params, typename Finder>
__device__ __forceinline__ void CopyKeys(uint32_t shared, const Params& params, const Finder& rows, int first, int end,
                                         int group, int thread, int threads) {
  CopyTile<Keys, KW>(shared, static_cast<const Bf16*>(params.k), rows, first, end, params.groups, group,
                     params.key_width, thread, threads);
  CopyTile<Keys, VW>(shared + KeyStage<Keys, KW, VW>::kValuesAt, static_cast<const Bf16*>(params.v), rows, first, end,
                     params.groups, group, params.value_width, thread, threads);
}

template <typename Params>
void AllowShared(const char* operation, void (*kernel)(Params), int bytes) {
  CudaCheck(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), operation);
}

// ---- Ranges: the window and the compressed branch ------------------------------------------------------------------

// A block takes 128 rows: as many consecutive queries of a segment as fit with all heads of one group, 16 rows a warp.
// It walks over tiles of 64 keys.
constexpr int kRangeRows = 128;
constexpr int kRangeThreads = kRangeRows * 2;
constexpr int kRangeKeys = 64;

// The part of this block, warp and lane.
struct RangePart {
  int group, rows;      // rows of the block
  int64_t row[2];       // this lane's, of [T,H]; past the end the last one again
  bool valid[2];        // is it one of the rows
  bool active;          // has the warp any
  SpanGpu seen[2];      // by this lane's rows
  SpanGpu first, last;  // by the warp's first and last row: what all see, what any sees
  int begin, end;       // what any row of the block sees
  int first_tile, last_tile;

  template <typename Params>
  __device__ __forceinline__ explicit RangePart(const Params& params) {
    const RangeSight& sight = params.sight;
    const int group_heads = params.group_heads(), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // The last queries see most of the compressed tokens: they begin first.
    const QueryTileGpu tile = FindQueries(params.queries, gridDim.x - 1 - blockIdx.x);
    group = blockIdx.y;
    rows = tile.count * group_heads;
    active = warp * 16 < rows;
    for (int i = 0; i < 2; ++i) {
      const int here = warp * 16 + lane / 4 + i * 8, r = min(here, rows - 1), query = r / group_heads;
      row[i] = static_cast<int64_t>(tile.row + query) * params.heads + group * group_heads + r % group_heads;
      valid[i] = here < rows;
      seen[i] = sight.Seen(tile.position + query);
    }
    first = sight.Seen(tile.position + min(warp * 16, rows - 1) / group_heads);
    last = sight.Seen(tile.position + min(warp * 16 + 15, rows - 1) / group_heads);
    begin = sight.Seen(tile.position).begin;
    end = sight.Seen(tile.position + tile.count - 1).end;
    first_tile = begin / kRangeKeys;
    last_tile = begin < end ? (end + kRangeKeys - 1) / kRangeKeys : first_tile;
  }
};

template <int KW, int VW>
constexpr int kRangeBytes = 2 * KeyStage<kRangeKeys, KW, VW>::kBytes;  // of shared memory

template <typename Params>
void LaunchRange(cudaStream_t stream, const char* operation, void (*kernel)(Params), int shared_bytes, Params params) {
  params.queries = Recut(params.queries, kRangeRows / params.group_heads());
  AllowShared(operation, kernel, shared_bytes);
  kernel<<<dim3(params.queries.tiles(), params.groups), kRangeThreads, shared_bytes, stream>>>(params);
}

// Brings the block's tiles to the two stages at `stages`, the next one while one is used. Rows of tile t are those of
// find(kRangeKeys * t). Calls take(address of the stage, masked, begin[2], end[2]) for tiles of which a row of the warp
// sees any: the keys in the tile that this lane's rows see, and whether any row of the warp misses one.
template <int KW, int VW, typename Params, typename Find, typename Take>
__device__ __forceinline__ void WalkRange(const Params& params, const RangePart& part, uint32_t stages,
                                          const Find& find, const Take& take) {
  using Stage = KeyStage<kRangeKeys, KW, VW>;
  const auto copy = [&](int tile) {
    const int first_key = tile * kRangeKeys;
    CopyKeys<kRangeKeys, KW, VW>(stages + tile % 2 * Stage::kBytes, params, find(first_key), part.begin - first_key,
                                 part.end - first_key, part.group, threadIdx.x, kRangeThreads);
    CommitCopies();
  };
  if (part.first_tile < part.last_tile) copy(part.first_tile);
  for (int tile = part.first_tile; tile < part.last_tile; ++tile) {
    WaitForCopies<0>();
    __syncthreads();  // this tile is here, and nobody reads the one before it any more
    if (tile + 1 < part.last_tile) copy(tile + 1);
    const int first_key = tile * kRangeKeys;
    if (!part.active | (first_key >= part.last.end) | (first_key + kRangeKeys <= part.first.begin)) continue;
    const bool masked = (first_key < part.last.begin) | (first_key + kRangeKeys > part.first.end);
    const int begin[2] = {part.seen[0].begin - first_key, part.seen[1].begin - first_key};
    const int end[2] = {part.seen[0].end - first_key, part.seen[1].end - first_key};
    take(stages + tile % 2 * Stage::kBytes, masked, begin, end);
  }
}

// ---- Chosen blocks: the selected branch ----------------------------------------------------------------------------

// A block takes one query and up to 16 heads of a group, padded to the 16 rows of a tensor-core tile: neighbouring
// queries choose different blocks. Its four warps take the chosen blocks' strips of 16 keys in turn.
constexpr int kChosenRows = 16;
constexpr int kChosenWarps = 4;
constexpr int kChosenThreads = kChosenWarps * 32;
constexpr int kChosenKeys = 16;

template <typename Params>
void LaunchChosen(cudaStream_t stream, const char* operation, void (*kernel)(Params), int shared_bytes,
                  const Params& params) {
  const dim3 grid(params.queries.tiles(), params.groups, (params.group_heads() + kChosenRows - 1) / kChosenRows);
  AllowShared(operation, kernel, shared_bytes);
  kernel<<<grid, kChosenThreads, shared_bytes, stream>>>(params);
}

// The part of this block and lane.
struct ChosenPart {
  int group, heads;
  QueryTileGpu query;
  int64_t first_row;  // of [T,H]
  int64_t row[2];     // this lane's; past the heads the last one again, not to be written
  const int32_t* chosen;
  int block_strips, strips;  // of a block, of all of them

  template <typename Params>
  __device__ __forceinline__ explicit ChosenPart(const Params& params) {
    const int first_head = blockIdx.z * kChosenRows, group_heads = params.group_heads(), lane = threadIdx.x % 32;
    group = blockIdx.y;
    heads = min(kChosenRows, group_heads - first_head);
    query = FindQueries(params.queries, blockIdx.x);
    first_row = static_cast<int64_t>(query.row) * params.heads + group * group_heads + first_head;
    for (int i = 0; i < 2; ++i) row[i] = first_row + min(lane / 4 + i * 8, heads - 1);
    chosen = params.sight.Chosen(query.row, params.groups, group);
    block_strips = (params.sight.block + kChosenKeys - 1) / kChosenKeys;
    strips = CountChosen(chosen, params.sight.choices) * block_strips;
  }

  // Issues one warp's copies of a strip to the stage at `to`; returns how many of its keys the query sees.
  template <int KW, int VW, typename Params>
  __device__ __forceinline__ int Copy(const Params& params, int strip, uint32_t to) const {
    int keys = 0;
    if (strip < strips) {
      const int in_block = strip % block_strips * kChosenKeys;
      const int first_key = chosen[strip / block_strips] * params.sight.block + in_block;
      keys = min(kChosenKeys, min(params.sight.block - in_block, query.position + 1 - first_key));
      if (keys > 0) {
        const RowFinder finder(params.table, params.page_rows, first_key, keys);
        CopyKeys<kChosenKeys, KW, VW>(to, params, finder, 0, keys, group, threadIdx.x % 32, 32);
      }
    }
    CommitCopies();
    return keys;
  }

 private:
  // The entries before the first -1. Called by whole warps.
  __device__ __forceinline__ static int CountChosen(const int32_t* chosen, int choices) {
    for (int first = 0; first < choices; first += 32) {
      const int i = first + threadIdx.x % 32;
      const unsigned none = __ballot_sync(~0u, i >= choices || chosen[i] < 0);
      if (none != 0) return first + __ffs(none) - 1;
    }
    return choices;
  }
};

}  // namespace longspan
