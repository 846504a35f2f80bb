// Rows of bf16 as one warp's operands and sums (kernels/base/ptx_sm80.cuh has their layout).
#pragma once

#include "kernels/base/gpu_common.cuh"

namespace longspan {

template <int N>
__device__ __forceinline__ void SetZero(float (&x)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) x[i][j] = 0;
  }
}

// Operand A [16, 16*N]: this lane's rows row[0], row[1] of x [.., width], zeros beyond the width.
template <int N>
__device__ __forceinline__ void LoadRows(const Bf16* x, const int64_t (&row)[2], int width, uint32_t (&to)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int channel = i * 16 + j / 2 * 8 + threadIdx.x % 4 * 2;
      to[i][j] = channel < width ? *reinterpret_cast<const uint32_t*>(x + row[j % 2] * width + channel) : 0;
    }
  }
}

}  // namespace longspan
