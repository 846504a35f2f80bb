// P and dS of a step's 64 rows against a warp's 16 keys, as operands: what the passes that own keys share. Scores are
// transposed, keys as rows; a lane's pair i of columns is rows 8i + 2 * (lane % 4) and the next of the step.
#pragma once

#include "kernels/attention/gpu/queries.cuh"
#include "kernels/base/ptx_sm90.cuh"

namespace longspan {

constexpr int kStepRows = 64;

// Scores to weights; lse_log2(i): float2 of pair i.
template <typename Lse>
__device__ __forceinline__ void TakeWeights(float (&s)[kStepRows / 2], float scale_log2, const Lse& lse_log2) {
#pragma unroll
  for (int i = 0; i < kStepRows / 8; ++i) {
    const float2 rows = lse_log2(i);
    s[i * 4] = Exp2(fmaf(s[i * 4], scale_log2, -rows.x));
    s[i * 4 + 1] = Exp2(fmaf(s[i * 4 + 1], scale_log2, -rows.y));
    s[i * 4 + 2] = Exp2(fmaf(s[i * 4 + 2], scale_log2, -rows.x));
    s[i * 4 + 3] = Exp2(fmaf(s[i * 4 + 3], scale_log2, -rows.y));
  }
}

// 0 for the keys that a row does not see; `key`: the lane's first of two, eight apart. seen(i): the spans of pair i's
// rows, begin and end of one and the other.
template <typename Seen>
__device__ __forceinline__ void MaskWeights(float (&s)[kStepRows / 2], int key, const Seen& seen) {
#pragma unroll
  for (int i = 0; i < kStepRows / 8; ++i) {
    const int4 rows = seen(i);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (key + j * 8 < rows.x || key + j * 8 >= rows.y) s[i * 4 + j * 2] = 0;
      if (key + j * 8 < rows.z || key + j * 8 >= rows.w) s[i * 4 + j * 2 + 1] = 0;
    }
  }
}

__device__ __forceinline__ void PackWeights(const float (&s)[kStepRows / 2], uint32_t (&p)[kStepRows / 16][4]) {
#pragma unroll
  for (int i = 0; i < kStepRows / 16; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) p[i][j] = PackBf16(s[i * 8 + j * 2], s[i * 8 + j * 2 + 1]);
  }
}

// dS from P and dP; delta(i): float2 of pair i.
template <typename Delta>
__device__ __forceinline__ void PackGradients(const float (&p)[kStepRows / 2], const float (&d_p)[kStepRows / 2],
                                              const Delta& delta, uint32_t (&d_s)[kStepRows / 16][4]) {
#pragma unroll
  for (int i = 0; i < kStepRows / 8; ++i) {
    const float2 rows = delta(i);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int at = i * 4 + j * 2;
      d_s[i / 2][i % 2 * 2 + j] = PackBf16(p[at] * (d_p[at] - rows.x), p[at + 1] * (d_p[at + 1] - rows.y));
    }
  }
}

}  // namespace longspan
