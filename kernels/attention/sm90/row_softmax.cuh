// Online softmax of the two rows of scores that a lane of a warp's product holds (the sums' layout in
// kernels/base/ptx_sm90.cuh and ptx_sm80.cuh: element i of N is of row i / 2 % 2), and their masks.
#pragma once

#include <math_constants.h>

#include <cfloat>
#include <cmath>

#include "kernels/base/ptx_sm80.cuh"

namespace longspan {

// The running maximum, in units of log2, and sum of a lane's two rows; the sum of the lane's own columns only. A tile
// in which a row sees nothing leaves both as they are: the maximum is kept as it was subtracted, so that `shrink` is
// 2^0.
struct RowSoftmax {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};

  // Scores to weights. What was summed before counts `shrink` times.
  template <int N>
  __device__ __forceinline__ void Take(float (&s)[N], float scale_log2, float (&shrink)[2]) {
    float base[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < N; ++i) base[i / 2 % 2] = fmaxf(base[i / 2 % 2], s[i]);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      base[i] = fmaxf(base[i], __shfl_xor_sync(~0u, base[i], 1));
      base[i] = fmaxf(base[i], __shfl_xor_sync(~0u, base[i], 2));
      const float largest = fmaxf(max[i], __fmul_rn(base[i], scale_log2));
      // A row that has seen nothing yet must not meet inf - inf.
      base[i] = largest == -INFINITY ? 0 : largest;
      shrink[i] = Exp2(max[i] - base[i]);
      max[i] = largest;
      sum[i] *= shrink[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      s[i] = Exp2(fmaf(s[i], scale_log2, -base[i / 2 % 2]));
      sum[i / 2 % 2] += s[i];
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
  // What o is multiplied with in the end; 0 for a row that saw nothing.
  __device__ __forceinline__ float Factor(int i) const { return sum[i] == 0 ? 0 : 1 / sum[i]; }
  // The natural logarithm of the sum of exponentials; -inf for a row that saw nothing.
  __device__ __forceinline__ float LogSumExp(int i) const {
    return sum[i] == 0 ? -INFINITY : max[i] * CUDART_LN2_F + logf(sum[i]);
  }
};

// Scores to units of log2. Positive, so that a score of -inf stays one; of scale 0, too.
__device__ __forceinline__ float ScaleLog2(float scale) { return fmaxf(scale * CUDART_L2E_F, FLT_MIN); }

// Element i of a lane's scores is key Column(i) from the lane's first on.
__device__ __forceinline__ constexpr int Column(int i) { return i / 4 * 8 + i % 2; }

// -inf for the scores of keys before, or from on, those that each row begins, or ends, with.
template <int N>
__device__ __forceinline__ void MaskBefore(float (&s)[N], int begin0, int begin1) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (Column(i) < (i / 2 % 2 == 0 ? begin0 : begin1)) s[i] = -INFINITY;
  }
}
template <int N>
__device__ __forceinline__ void MaskFrom(float (&s)[N], int end0, int end1) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (Column(i) >= (i / 2 % 2 == 0 ? end0 : end1)) s[i] = -INFINITY;
  }
}

}  // namespace longspan
