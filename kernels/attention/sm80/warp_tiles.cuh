// One warp's products with tiles in shared memory, on the tensor cores, and what the branches' kernels make of them: 16
// rows (queries x heads of one group) against strips of keys. Tiles of width W have rows of PaddedWidth(W) elements. A
// lane's rows are g = lane / 4 and g + 8.
#pragma once

#include <math_constants.h>

#include "kernels/attention/gpu/backward.cuh"
#include "kernels/attention/gpu/warp_rows.cuh"
#include "kernels/base/ptx_sm80.cuh"

namespace longspan {

// ---- Widths --------------------------------------------------------------------------------------------------------

// Calls f.operator()<KW, VW>() with the smallest widths that hold K and V: narrower rows are padded with zeros.
template <typename F>
void DispatchWidths(int key_width, int value_width, const F& f) {
  if (key_width <= 64 && value_width <= 64) {
    f.template operator()<64, 64>();
  } else if (key_width <= 128 && value_width <= 128) {
    f.template operator()<128, 128>();
  } else if (key_width <= 192 && value_width <= 128) {
    f.template operator()<192, 128>();
  } else {
    f.template operator()<256, 256>();
  }
}

// The same for the backward, which holds K up to kMaxBackwardKeyWidth and V up to kMaxBackwardValueWidth.
constexpr int kMaxBackwardKeyWidth = 192, kMaxBackwardValueWidth = 128;
template <typename F>
void DispatchBackwardWidths(int key_width, int value_width, const F& f) {
  if (key_width <= 64 && value_width <= 64) {
    f.template operator()<64, 64>();
  } else if (key_width <= 128) {
    f.template operator()<128, 128>();
  } else {
    f.template operator()<192, 128>();
  }
}

// Elements between the rows of a tile in shared memory: 16 bytes past a multiple of 128, so that the eight rows of a
// matrix that ldmatrix reads lie in different banks.
constexpr int PaddedWidth(int width) { return width + 8; }

// ---- Products ------------------------------------------------------------------------------------------------------

// What ldmatrix reads of a tile at address `tile`, as operand A (16 rows), as B by rows (16 rows, the columns are
// summed over), as B by columns (the 16 rows are summed over).
template <int W>
__device__ __forceinline__ uint32_t LaneOfA(uint32_t tile) {
  const int lane = threadIdx.x % 32;
  return tile + (lane % 16 * PaddedWidth(W) + lane / 16 * 8) * 2;
}
template <int W>
__device__ __forceinline__ uint32_t LaneOfRows(uint32_t tile) {
  const int matrix = threadIdx.x % 32 / 8, row = threadIdx.x % 8;
  return tile + ((matrix / 2 * 8 + row) * PaddedWidth(W) + matrix % 2 * 8) * 2;
}
template <int W>
__device__ __forceinline__ uint32_t LaneOfColumns(uint32_t tile) {
  const int matrix = threadIdx.x % 32 / 8, row = threadIdx.x % 8;
  return tile + ((matrix % 2 * 8 + row) * PaddedWidth(W) + matrix / 2 * 8) * 2;
}

// sum [16, 8*N] = A (registers) * (8*N rows of a tile)^T
template <int W, int N>
__device__ __forceinline__ void TimesRows(const uint32_t (&a)[W / 16][4], uint32_t lane_of_rows, float (&sum)[N][4]) {
  SetZero(sum);
#pragma unroll
  for (int i = 0; i < W / 16; ++i) {
#pragma unroll
    for (int j = 0; j < N / 2; ++j) {
      uint32_t b[4];
      LoadMatrices<false>(b, lane_of_rows + (j * 16 * PaddedWidth(W) + i * 16) * 2);
      Mma(sum[2 * j], a[i], b[0], b[1]);
      Mma(sum[2 * j + 1], a[i], b[2], b[3]);
    }
  }
}

// The same with A in shared memory.
template <int W, int N>
__device__ __forceinline__ void TimesRows(uint32_t lane_of_a, uint32_t lane_of_rows, float (&sum)[N][4]) {
  SetZero(sum);
#pragma unroll
  for (int i = 0; i < W / 16; ++i) {
    uint32_t a[4];
    LoadMatrices<false>(a, lane_of_a + i * 32);
#pragma unroll
    for (int j = 0; j < N / 2; ++j) {
      uint32_t b[4];
      LoadMatrices<false>(b, lane_of_rows + (j * 16 * PaddedWidth(W) + i * 16) * 2);
      Mma(sum[2 * j], a, b[0], b[1]);
      Mma(sum[2 * j + 1], a, b[2], b[3]);
    }
  }
}

// sum [16, W] += x [16, 8*N], rounded to bf16, * (8*N rows of a tile)
template <int W, int N>
__device__ __forceinline__ void AddTimesColumns(const float (&x)[N][4], uint32_t lane_of_columns,
                                                float (&sum)[W / 8][4]) {
#pragma unroll
  for (int j = 0; j < N / 2; ++j) {
    const uint32_t a[4] = {PackBf16(x[2 * j][0], x[2 * j][1]), PackBf16(x[2 * j][2], x[2 * j][3]),
                           PackBf16(x[2 * j + 1][0], x[2 * j + 1][1]), PackBf16(x[2 * j + 1][2], x[2 * j + 1][3])};
#pragma unroll
    for (int i = 0; i < W / 16; ++i) {
      uint32_t b[4];
      LoadMatrices<true>(b, lane_of_columns + (j * 16 * PaddedWidth(W) + i * 16) * 2);
      Mma(sum[2 * i], a, b[0], b[1]);
      Mma(sum[2 * i + 1], a, b[2], b[3]);
    }
  }
}

// ---- Forward: a running maximum and sum (online softmax), scores in units of log2 -----------------------------------

// KW, VW: multiples of 16.
template <int KW, int VW>
struct WarpAttention {
  uint32_t q[KW / 16][4];
  float o[VW / 8][4];
  float max[2];
  float sum[2];  // this lane's columns only, until Finish

  // row[i]: this lane's rows of [T,H].
  __device__ __forceinline__ void Start(const void* all_q, const int64_t (&row)[2], int width) {
    LoadRows(static_cast<const Bf16*>(all_q), row, width, q);
    SetZero(o);
    max[0] = max[1] = -CUDART_INF_F;
    sum[0] = sum[1] = 0;
  }

  // Takes keys 0..Keys-1 of the tiles k [Keys, PaddedWidth(KW)], v [Keys, PaddedWidth(VW)] (addresses in shared
  // memory). With `masked` lane row i sees only keys [begin[i], end[i]). Rows no lane row sees must hold finite
  // values.
  template <int Keys>
  __device__ __forceinline__ void Take(uint32_t k, uint32_t v, float scale_log2, bool masked, const int (&begin)[2],
                                       const int (&end)[2]) {
    float s[Keys / 8][4];
    TimesRows<KW>(q, LaneOfRows<KW>(k), s);

#pragma unroll
    for (int i = 0; i < Keys / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) s[i][j] *= scale_log2;
    }
    if (masked) {  // alike for the whole warp, and rare: the other tiles are spared the comparisons
#pragma unroll
      for (int i = 0; i < Keys / 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int key = i * 8 + threadIdx.x % 4 * 2 + j % 2;
          if (key < begin[j / 2] || key >= end[j / 2]) s[i][j] = -CUDART_INF_F;
        }
      }
    }
    float largest[2] = {max[0], max[1]};
#pragma unroll
    for (int i = 0; i < Keys / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) largest[j / 2] = fmaxf(largest[j / 2], s[i][j]);
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

    AddTimesColumns<VW>(s, LaneOfColumns<VW>(v), o);
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

// ---- Backward ------------------------------------------------------------------------------------------------------

// One warp's d_q.
template <int KW, int VW>
struct WarpBackwardQ {
  static constexpr int kStrip = KW > 128 ? 16 : 32;  // keys at once, as registers allow
  uint32_t q[KW / 16][4], d_o[VW / 16][4];
  float lse_log2[2], delta[2];
  float d_q[KW / 8][4];  // less the scale

  // row[i]: this lane's rows of [T,H].
  template <typename Params>
  __device__ __forceinline__ void Start(const Params& params, const int64_t (&row)[2]) {
    LoadRows(static_cast<const Bf16*>(params.q), row, params.key_width, q);
    LoadRows(static_cast<const Bf16*>(params.d_o), row, params.value_width, d_o);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      lse_log2[i] = params.lse[row[i]] * CUDART_L2E_F;
      delta[i] = params.delta[row[i]];
    }
    SetZero(d_q);
  }

  // Takes `Keys` keys of the tiles k, v (addresses in shared memory); lane row i sees keys [begin[i], end[i]). The
  // rows of k must hold finite values.
  template <int Keys>
  __device__ __forceinline__ void Take(uint32_t k, uint32_t v, float scale_log2, const int (&begin)[2],
                                       const int (&end)[2]) {
    constexpr int kKeys = Keys < kStrip ? Keys : kStrip;
#pragma unroll
    for (int first = 0; first < Keys; first += kKeys) {
      const uint32_t k_strip = k + first * PaddedWidth(KW) * 2, v_strip = v + first * PaddedWidth(VW) * 2;
      float s[kKeys / 8][4], d_p[kKeys / 8][4];
      TimesRows<KW>(q, LaneOfRows<KW>(k_strip), s);
      TimesRows<VW>(d_o, LaneOfRows<VW>(v_strip), d_p);
#pragma unroll
      for (int i = 0; i < kKeys / 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int key = first + i * 8 + threadIdx.x % 4 * 2 + j % 2;
          const float p = Exp2(s[i][j] * scale_log2 - lse_log2[j / 2]);
          s[i][j] = key >= begin[j / 2] && key < end[j / 2] ? p * (d_p[i][j] - delta[j / 2]) : 0.f;
        }
      }
      AddTimesColumns<KW>(s, LaneOfColumns<KW>(k_strip), d_q);
    }
  }
};

}  // namespace longspan
