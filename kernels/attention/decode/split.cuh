// One split of keys: the attention of one query's heads of a group, up to 16, to up to kSplitKeys rows, by a block of
// 128 threads. Scores first, all of the split's, then one maximum and the weights, then the values: no sum is ever
// rescaled, and the weights lie in shared memory for who wants their sums.
//
// BF16 on tensor cores (mma.sync, the heads are its 16 rows), F32 by plain multiplications. Tiles of 32 keys, then of
// 32 values, are on their way to shared memory while others are used. Bound by device memory.
#pragma once

#include <math_constants.h>

#include "kernels/base/gpu_common.cuh"
#include "kernels/base/ptx_sm80.cuh"

namespace longspan {

constexpr int kSplitKeys = 512;
constexpr int kSplitThreads = 128;
constexpr int kSplitHeads = 16;
constexpr int kTileRows = 32;
template <typename T>
constexpr int kSplitStages = sizeof(T) == 2 ? 4 : 3;  // F32: as shared memory allows
constexpr int kScoreStride = kSplitKeys + 4;  // floats: rows of scores and of BF16 weights lie in different banks

// Elements between rows in shared memory: 16 bytes past a multiple of 128.
template <typename T, int W>
constexpr int kRowStride = W + kVector<T>;

template <typename T, int KW, int VW>
struct SplitMemory {
  static constexpr int kStageBytes = kTileRows * kRowStride<T, (KW > VW ? KW : VW)> * static_cast<int>(sizeof(T));
  // BF16 queries lie where scores come once they are in registers.
  static constexpr int kQueryRows = sizeof(T) == 2 ? 0 : kSplitHeads;
  uint4 stages[kSplitStages<T>][kStageBytes / 16];
  // [heads, keys]: scores in units of log2, then their weights relative to the row's maximum, F32; BF16 weights take
  // their place.
  float scores[kSplitHeads][kScoreStride];
  int places[kSplitKeys];  // of each key in the buffer, -1: not seen
  uint4 own_queries[kQueryRows * kRowStride<T, KW> * sizeof(T) / 16 + 1];

  __device__ T* query(int head) {
    uint4* const first = sizeof(T) == 2 ? reinterpret_cast<uint4*>(scores) : own_queries;
    return reinterpret_cast<T*>(first) + head * kRowStride<T, KW>;
  }
};

template <typename T>
struct SplitArgs {
  const T *q, *k, *v;  // q: the part's first head
  int heads;           // of the part
  int groups, group, key_width, value_width;
  float scale_log2;
  int begin, end;  // columns that the query sees, of [0, kSplitKeys); begin < end
  // Of the part's first head; a head's partial results come `head_stride` later.
  float* o;         // [V] weighted sums
  float2* max_sum;  // the maximum score in units of log2, the weights' sum
  int head_stride;  // splits of a head, times its heads' distance
};

// Row `row` of x for this thread's pieces of 16 bytes; zeros for columns beyond the width and rows that are not there.
template <typename T, int W>
__device__ __forceinline__ void CopySplitTile(uint32_t stage, const T* x, const int* places, int groups, int group,
                                              int width) {
  constexpr int kPieces = W / kVector<T>;
#pragma unroll
  for (int i = threadIdx.x; i < kTileRows * kPieces; i += kSplitThreads) {
    const int row = i / kPieces, channel = i % kPieces * kVector<T>, place = places[row];
    const bool there = place >= 0 && channel < width;
    const T* const from = x + (static_cast<int64_t>(place) * groups + group) * width + channel;
    CopyAsync16(stage + (row * kRowStride<T, W> + channel) * static_cast<int>(sizeof(T)), there ? from : x, there);
  }
}

// ---- Products
// --------------------------------------------------------------------------------------------------------

template <typename T, int KW, int VW>
struct SplitProducts;

// A warp takes a quarter of a tile's keys, then a quarter of the values' channels.
template <int KW, int VW>
struct SplitProducts<Bf16, KW, VW> {
  using Memory = SplitMemory<Bf16, KW, VW>;
  static constexpr int kChannels = VW / 4;
  uint32_t q[KW / 16][4];
  float o[kChannels / 8][4];

  __device__ void Start(Memory& memory) {
    const int lane = threadIdx.x % 32;
    const uint32_t from = SharedAddress(memory.query(lane % 16) + lane / 16 * 8);
#pragma unroll
    for (int i = 0; i < KW / 16; ++i) LoadMatrices<false>(q[i], from + i * 32);
#pragma unroll
    for (int i = 0; i < kChannels / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) o[i][j] = 0;
    }
  }

  __device__ void Scores(Memory& memory, int stage, int tile, float scale_log2) {
    constexpr int kEights = kTileRows / 32;  // of a warp's keys
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int j = 0; j < kEights; ++j) {
      const int first = (warp * kEights + j) * 8;
      const uint32_t rows =
          SharedAddress(memory.stages[stage]) + ((first + lane % 8) * kRowStride<Bf16, KW> + lane / 8 * 8) * 2;
      float s[4] = {};
#pragma unroll
      for (int i = 0; i < KW / 32; ++i) {
        uint32_t b[4];
        LoadMatrices<false>(b, rows + i * 64);
        Mma(s, q[2 * i], b[0], b[1]);
        Mma(s, q[2 * i + 1], b[2], b[3]);
      }
      const int column = tile * kTileRows + first + lane % 4 * 2;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<float2*>(&memory.scores[lane / 4 + half * 8][column]) =
            make_float2(s[2 * half] * scale_log2, s[2 * half + 1] * scale_log2);
      }
    }
  }

  __device__ void AddValues(const Memory& memory, int stage, int tile) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, matrix = lane / 8;
    const uint32_t weights = SharedAddress(memory.scores[lane % 16]) + (tile * kTileRows + lane / 16 * 8) * 2;
    const uint32_t columns =
        SharedAddress(memory.stages[stage]) +
        ((matrix % 2 * 8 + lane % 8) * kRowStride<Bf16, VW> + matrix / 2 * 8 + warp * kChannels) * 2;
#pragma unroll
    for (int step = 0; step < kTileRows / 16; ++step) {
      uint32_t a[4];
      LoadMatrices<false>(a, weights + step * 32);
#pragma unroll
      for (int i = 0; i < kChannels / 16; ++i) {
        uint32_t b[4];
        LoadMatrices<true>(b, columns + (step * 16 * kRowStride<Bf16, VW> + i * 16) * 2);
        Mma(o[2 * i], a, b[0], b[1]);
        Mma(o[2 * i + 1], a, b[2], b[3]);
      }
    }
  }

  __device__ void Finish(const SplitArgs<Bf16>& args) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < kChannels / 8; ++i) {
      const int channel = warp * kChannels + i * 8 + lane % 4 * 2;
      if (channel >= args.value_width) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int head = lane / 4 + half * 8;
        if (head >= args.heads) continue;
        float* const to = args.o + static_cast<int64_t>(head) * args.head_stride * args.value_width + channel;
        *reinterpret_cast<float2*>(to) = make_float2(o[i][2 * half], o[i][2 * half + 1]);
      }
    }
  }
};

// A thread takes a key and a share of the heads, then a channel and as many heads as there are threads for it.
template <int KW, int VW>
struct SplitProducts<float, KW, VW> {
  using Memory = SplitMemory<float, KW, VW>;
  static constexpr int kHeads = kSplitHeads * VW / kSplitThreads;
  float o[kHeads];

  __device__ void Start(Memory&) {
#pragma unroll
    for (int i = 0; i < kHeads; ++i) o[i] = 0;
  }

  __device__ void Scores(Memory& memory, int stage, int tile, float scale_log2) {
    constexpr int kShare = kSplitHeads * kTileRows / kSplitThreads;  // heads of a thread
    const auto* const keys = reinterpret_cast<const float*>(memory.stages[stage]);
    const int key = threadIdx.x % kTileRows, first = threadIdx.x / kTileRows * kShare;
    float s[kShare] = {};
#pragma unroll 4
    for (int c = 0; c < KW; c += 4) {
      const float4 k = *reinterpret_cast<const float4*>(keys + key * kRowStride<float, KW> + c);
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        const float4 x = *reinterpret_cast<const float4*>(memory.query(first + i) + c);
        s[i] = fmaf(x.w, k.w, fmaf(x.z, k.z, fmaf(x.y, k.y, fmaf(x.x, k.x, s[i]))));
      }
    }
#pragma unroll
    for (int i = 0; i < kShare; ++i) memory.scores[first + i][tile * kTileRows + key] = s[i] * scale_log2;
  }

  __device__ void AddValues(const Memory& memory, int stage, int tile) {
    const auto* const values = reinterpret_cast<const float*>(memory.stages[stage]);
    const int channel = threadIdx.x % VW, first = threadIdx.x / VW * kHeads;
    for (int key = 0; key < kTileRows; ++key) {
      const float v = values[key * kRowStride<float, VW> + channel];
#pragma unroll
      for (int i = 0; i < kHeads; ++i) o[i] = fmaf(memory.scores[first + i][tile * kTileRows + key], v, o[i]);
    }
  }

  __device__ void Finish(const SplitArgs<float>& args) const {
    const int channel = threadIdx.x % VW, first = threadIdx.x / VW * kHeads;
    if (channel >= args.value_width) return;
#pragma unroll
    for (int i = 0; i < kHeads; ++i) {
      if (first + i >= args.heads) continue;
      args.o[static_cast<int64_t>(first + i) * args.head_stride * args.value_width + channel] = o[i];
    }
  }
};

// ---- The split
// -------------------------------------------------------------------------------------------------------

// Scores become weights: 8 threads a row. Calls sums() when memory.scores holds them as F32, zeros where nothing is
// seen. Ends with all threads together.
template <typename T, typename Memory, typename Sums>
__device__ __forceinline__ void Weigh(const SplitArgs<T>& args, Memory& memory, int columns, const Sums& sums) {
  constexpr int kRounds = kSplitKeys / 32;
  const int row = threadIdx.x / 8, sub = threadIdx.x % 8;
  float weight[kRounds][4];
  float largest = -CUDART_INF_F;
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    const int column = i * 32 + sub * 4;
    float4 s = make_float4(0, 0, 0, 0);
    if (column < columns) s = *reinterpret_cast<const float4*>(&memory.scores[row][column]);
    weight[i][0] = s.x, weight[i][1] = s.y, weight[i][2] = s.z, weight[i][3] = s.w;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (column + j < args.begin || column + j >= args.end) weight[i][j] = -CUDART_INF_F;
      largest = fmaxf(largest, weight[i][j]);
    }
  }
#pragma unroll
  for (int step = 1; step < 8; step *= 2) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    const int column = i * 32 + sub * 4;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      weight[i][j] = Exp2(weight[i][j] - largest);
      sum += weight[i][j];
    }
    if (column < columns) {
      *reinterpret_cast<float4*>(&memory.scores[row][column]) =
          make_float4(weight[i][0], weight[i][1], weight[i][2], weight[i][3]);
    }
  }
#pragma unroll
  for (int step = 1; step < 8; step *= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  if (sub == 0 && row < args.heads)
    args.max_sum[static_cast<int64_t>(row) * args.head_stride] = make_float2(largest, sum);
  __syncthreads();
  sums();
  if constexpr (std::is_same_v<T, Bf16>) {
    __syncthreads();
    auto* const to = reinterpret_cast<uint2*>(memory.scores[row]);
#pragma unroll
    for (int i = 0; i < kRounds; ++i) {
      const int column = i * 32 + sub * 4;
      if (column < columns) {
        to[column / 4] = make_uint2(PackBf16(weight[i][0], weight[i][1]), PackBf16(weight[i][2], weight[i][3]));
      }
    }
    __syncthreads();
  }
}

// place(column): the key's row in the buffer, for columns that are seen. sums(): as Weigh.
template <typename T, int KW, int VW, typename Place, typename Sums>
__device__ void AttendSplit(const SplitArgs<T>& args, SplitMemory<T, KW, VW>& memory, const Place& place,
                            const Sums& sums) {
  const int tiles = (args.end + kTileRows - 1) / kTileRows;
  for (int i = threadIdx.x; i < kSplitHeads * KW / kVector<T>; i += kSplitThreads) {
    const int head = i / (KW / kVector<T>), channel = i % (KW / kVector<T>)*kVector<T>;
    const bool there = head < args.heads && channel < args.key_width;
    CopyAsync16(SharedAddress(memory.query(head) + channel), there ? args.q + head * args.key_width + channel : args.q,
                there);
  }
  CommitCopies();
  for (int column = threadIdx.x; column < tiles * kTileRows; column += kSplitThreads) {
    memory.places[column] = column >= args.begin && column < args.end ? place(column) : -1;
  }
  __syncthreads();
  // Steps: the tiles' keys, then their values.
  const auto bring = [&](int step) {
    const uint32_t stage = SharedAddress(memory.stages[step % kSplitStages<T>]);
    if (step < tiles) {
      CopySplitTile<T, KW>(stage, args.k, memory.places + step * kTileRows, args.groups, args.group, args.key_width);
    } else if (step < 2 * tiles) {
      CopySplitTile<T, VW>(stage, args.v, memory.places + (step - tiles) * kTileRows, args.groups, args.group,
                           args.value_width);
    }
    CommitCopies();
  };
  for (int step = 0; step < kSplitStages<T> - 1; ++step) bring(step);
  SplitProducts<T, KW, VW> products;
  for (int step = 0; step < 2 * tiles; ++step) {
    WaitForCopies<kSplitStages<T> - 2>();
    __syncthreads();  // this step's tile is here, and nobody reads the one before it any more
    bring(step + kSplitStages<T> - 1);
    if (step == 0) {
      products.Start(memory);
      __syncthreads();
    }
    if (step < tiles) {
      products.Scores(memory, step % kSplitStages<T>, step, args.scale_log2);
      if (step == tiles - 1) {
        __syncthreads();
        Weigh(args, memory, tiles * kTileRows, sums);
      }
    } else {
      products.AddValues(memory, step % kSplitStages<T>, step - tiles);
    }
  }
  products.Finish(args);
}

}  // namespace longspan
