// Sums over rows in an order that the sizes alone decide: parts of neighbouring rows, then the parts.
#pragma once

#include "kernels/base/gpu_common.cuh"

namespace longspan {

constexpr int64_t kRowParts = 512;
constexpr int kPartLanes = 32;

// total[c] += parts[0,c] + parts[1,c] + .., by blocks of 32 columns and kPartLanes lanes of parts.
static __global__ void __launch_bounds__(kWarp* kPartLanes)
    AddPartsKernel(const float* parts, int64_t count, int64_t width, float* total) {
  __shared__ float lanes[kPartLanes][kWarp + 1];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  float sum = 0;
  if (column < width) {
#pragma unroll 8
    for (int64_t part = threadIdx.y; part < count; part += kPartLanes) sum += parts[part * width + column];
  }
  lanes[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < width) {
    for (int lane = 1; lane < kPartLanes; ++lane) sum += lanes[lane][threadIdx.x];
    total[column] += sum;
  }
}

inline void AddParts(cudaStream_t cuda, const float* parts, int64_t count, int64_t width, float* total) {
  if (count == 0 || width == 0) return;
  AddPartsKernel<<<GridFor(width, kWarp), dim3(kWarp, kPartLanes), 0, cuda>>>(parts, count, width, total);
}

}  // namespace longspan
