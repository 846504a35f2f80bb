// One warp's products of the backward: 16 rows against tiles in shared memory, on the tensor cores. Tiles of width W
// have rows of PaddedWidth(W) elements.
#pragma once

#include "kernels/attention/gpu/backward.cuh"
#include "kernels/attention/sm80/branch_warp.cuh"

namespace longspan {

// 4 bytes to shared memory behind the program's back, zeros when not `valid`.
__device__ __forceinline__ void CopyAsync4(uint32_t shared_address, const void* from, bool valid) {
  const int bytes = valid ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address), "l"(from), "r"(bytes)
               : "memory");
}

template <int N>
__device__ __forceinline__ void SetZero(float (&x)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) x[i][j] = 0;
  }
}

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

// One warp's d_q: 16 rows (queries x heads of one group). A lane's rows are g = lane / 4 and g + 8.
template <int KW, int VW>
struct WarpBackwardQ {
  static constexpr int kStrip = KW > 128 ? 16 : 32;  // keys at once, as registers allow
  uint32_t q[KW / 16][4], d_o[VW / 16][4];
  float lse_log2[2], delta[2];
  float d_q[KW / 8][4];  // less the scale

  // row[i]: this lane's rows of [T,H].
  __device__ __forceinline__ void Start(const BackwardParams& params, const int64_t (&row)[2]) {
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

 private:
  template <int N>
  __device__ __forceinline__ static void LoadRows(const Bf16* x, const int64_t (&row)[2], int width,
                                                  uint32_t (&to)[N][4]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int channel = i * 16 + j / 2 * 8 + threadIdx.x % 4 * 2;
        to[i][j] = channel < width ? *reinterpret_cast<const uint32_t*>(x + row[j % 2] * width + channel) : 0;
      }
    }
  }
};

}  // namespace longspan
