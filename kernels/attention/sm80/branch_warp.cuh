// One warp's share of a branch's forward: 16 rows (queries x heads of one group) against strips of keys that lie in
// shared memory, with a running maximum and sum (online softmax). Scores are kept in units of log2.
#pragma once

#include <math_constants.h>

#include "kernels/attention/gpu/sight.cuh"
#include "kernels/base/ptx_sm80.cuh"

namespace longspan {

// Elements between the rows of a tile in shared memory: 16 bytes past a multiple of 128, so that the eight rows of a
// matrix that ldmatrix reads lie in different banks.
constexpr int PaddedWidth(int width) { return width + 8; }

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// KW, VW: multiples of 16. Lane rows are g = lane / 4 and g + 8.
template <int KW, int VW>
struct WarpAttention {
  uint32_t q[KW / 16][4];
  float o[VW / 8][4];
  float max[2];
  float sum[2];  // this lane's columns only, until Finish

  // row[i]: this lane's rows of q, of which `width` channels count.
  __device__ __forceinline__ void Start(const Bf16* const (&row)[2], int width) {
    const int c = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < KW / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int channel = i * 16 + j / 2 * 8 + c;
        q[i][j] = channel < width ? *reinterpret_cast<const uint32_t*>(row[j % 2] + channel) : 0;
      }
    }
#pragma unroll
    for (int i = 0; i < VW / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) o[i][j] = 0;
    }
    max[0] = max[1] = -CUDART_INF_F;
    sum[0] = sum[1] = 0;
  }

  // Takes keys 0..Keys-1 of the tiles k [Keys, PaddedWidth(KW)], v [Keys, PaddedWidth(VW)] (addresses in shared
  // memory). With `masked` lane row i sees only keys [begin[i], end[i]). Rows no lane row sees must hold finite
  // values.
  template <int Keys>
  __device__ __forceinline__ void Take(uint32_t k, uint32_t v, float scale_log2, bool masked, const int (&begin)[2],
                                       const int (&end)[2]) {
    const int lane = threadIdx.x % 32, matrix = lane / 8, matrix_row = lane % 8;
    float s[Keys / 8][4];
#pragma unroll
    for (int i = 0; i < Keys / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) s[i][j] = 0;
    }
    // Matrices of one load: keys 0-7 and 8-15 (bit 1), channels 0-7 and 8-15 (bit 0).
    const uint32_t k_lane = k + ((matrix / 2 * 8 + matrix_row) * PaddedWidth(KW) + matrix % 2 * 8) * 2;
#pragma unroll
    for (int i = 0; i < KW / 16; ++i) {
#pragma unroll
      for (int j = 0; j < Keys / 16; ++j) {
        uint32_t b[4];
        LoadMatrices<false>(b, k_lane + (j * 16 * PaddedWidth(KW) + i * 16) * 2);
        Mma(s[2 * j], q[i], b[0], b[1]);
        Mma(s[2 * j + 1], q[i], b[2], b[3]);
      }
    }

    float largest[2] = {max[0], max[1]};
#pragma unroll
    for (int i = 0; i < Keys / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int key = i * 8 + lane % 4 * 2 + j % 2;
        s[i][j] *= scale_log2;
        if (masked && (key < begin[j / 2] || key >= end[j / 2])) s[i][j] = -CUDART_INF_F;
        largest[j / 2] = fmaxf(largest[j / 2], s[i][j]);
      }
    }
    float shrink[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(~0u, largest[i], 1));
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(~0u, largest[i], 2));
      // A row that has seen nothing yet keeps sum 0, and must not meet inf - inf.
      const float base = largest[i] == -CUDART_INF_F ? 0 : largest[i];
      shrink[i] = Exp2(max[i] - base);
      max[i] = largest[i];
      largest[i] = base;
      sum[i] *= shrink[i];
    }
#pragma unroll
    for (int i = 0; i < Keys / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] = Exp2(s[i][j] - largest[j / 2]);
        sum[j / 2] += s[i][j];
      }
    }
    if (__any_sync(~0u, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
      for (int i = 0; i < VW / 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) o[i][j] *= shrink[j / 2];
      }
    }

    // Matrices of one load: keys 0-7 and 8-15 (bit 0), channels 0-7 and 8-15 (bit 1).
    const uint32_t v_lane = v + ((matrix % 2 * 8 + matrix_row) * PaddedWidth(VW) + matrix / 2 * 8) * 2;
#pragma unroll
    for (int j = 0; j < Keys / 16; ++j) {
      const uint32_t p[4] = {PackBf16(s[2 * j][0], s[2 * j][1]), PackBf16(s[2 * j][2], s[2 * j][3]),
                             PackBf16(s[2 * j + 1][0], s[2 * j + 1][1]), PackBf16(s[2 * j + 1][2], s[2 * j + 1][3])};
#pragma unroll
      for (int i = 0; i < VW / 16; ++i) {
        uint32_t b[4];
        LoadMatrices<true>(b, v_lane + (j * 16 * PaddedWidth(VW) + i * 16) * 2);
        Mma(o[2 * i], p, b[0], b[1]);
        Mma(o[2 * i + 1], p, b[2], b[3]);
      }
    }
  }

  // After the last Take: `sum` becomes the rows' whole sums.
  __device__ __forceinline__ void Finish() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sum[i] += __shfl_xor_sync(~0u, sum[i], 1);
      sum[i] += __shfl_xor_sync(~0u, sum[i], 2);
    }
  }
};

// The natural logarithm of a row's sum of exponentials; -inf for a row that saw nothing.
__device__ __forceinline__ float LogSumExp(float max_log2, float sum) {
  return sum == 0 ? -CUDART_INF_F : max_log2 * CUDART_LN2_F + logf(sum);
}

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

}  // namespace longspan
