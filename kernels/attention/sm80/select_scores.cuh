// The scores of selection on the tensor cores, the part of gpu/select.cuh that an architecture has to itself.
#pragma once

#include <math_constants.h>

#include "kernels/attention/gpu/select.cuh"
#include "kernels/base/ptx_sm80.cuh"

namespace longspan {

// bf16, K up to 32 * Chunks and a multiple of 8, zeros beyond K.
//
// The order of channels in a product is free as long as both operands agree: lane c = lane % 4 takes channels
// 32*i + 8*c .. +7 of its row, 16 bytes at once, as its share of two steps of mma.sync.
template <int Chunks>
struct TensorScores {
  // Tiles of 16 rows whose keys are in registers at one time.
  static constexpr int kTiles = Chunks <= 4 ? 2 : 1;

  // q in the order of the fragments [group_heads, Chunks, lane] of 16 bytes, then lse in units of log2 [group_heads,
  // kSelectQueries].
  static int64_t SharedBytes(int group_heads) { return group_heads * (Chunks * 512 + kSelectQueries * sizeof(float)); }

  __device__ static void Prepare(const SelectParams& p, const QueryTileGpu& tile, int group, uint4* shared) {
    const int group_heads = p.group_heads(), pieces = group_heads * Chunks * 32;
    const auto* const q = static_cast<const Bf16*>(p.q);
    for (int i = threadIdx.x; i < pieces; i += kSelectThreads) {
      const int query = i % 32 / 4, channel = i / 32 % Chunks * 32 + i % 4 * 8, head = i / (32 * Chunks);
      const int64_t row = tile.row + query;
      const bool there = query < tile.count && channel < p.key_width;
      const Bf16* const from = q + (row * p.heads + group * group_heads + head) * p.key_width + channel;
      shared[i] = there ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    }
    float* const lse = reinterpret_cast<float*>(shared + pieces);
    for (int i = threadIdx.x; i < group_heads * kSelectQueries; i += kSelectThreads) {
      const int64_t row = tile.row + i % kSelectQueries;
      const int head = group * group_heads + i / kSelectQueries;
      lse[i] = i % kSelectQueries < tile.count ? p.lse[row * p.heads + head] * CUDART_L2E_F : 0.0f;
    }
  }

  __device__ __forceinline__ static void Step(const StepArgs& args, const uint4* shared) {
    const SelectParams& p = args.params;
    const int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4, group_heads = p.group_heads();
    const auto* const k = static_cast<const Bf16*>(p.k);
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
        const Bf16* const from = k + (place * p.groups + args.group) * p.key_width + c * 8;
#pragma unroll
        for (int chunk = 0; chunk < Chunks; ++chunk) {
          const bool there = place >= 0 && chunk * 32 + c * 8 < p.key_width;
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
        const float2 of = lse[head * (kSelectQueries / 2)];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sum[tile][i] += Exp2(fmaf(score[tile][i], p.scale_log2, i % 2 == 0 ? -of.x : -of.y));
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

}  // namespace longspan
