// What the GPU's kernels share: BF16 and F32 as float, reductions in fixed order, grids.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/base/arguments.h"
#include "runtime/gpu.h"
#include "runtime/rounding.h"

namespace longspan {

using Bf16 = __nv_bfloat16;

// ---- Types -------------------------------------------------------------------------------------------------------

__host__ __device__ inline float ToFloat(float x) { return x; }
__host__ __device__ inline float ToFloat(Bf16 x) { return __bfloat162float(x); }

template <typename T>
__host__ __device__ inline T FromFloat(float x) {  // to the nearest, ties to even
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return __float2bfloat16_rn(x);
  }
}

template <typename T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));  // elements of a 16-byte access

// 16 bytes from an address that is a multiple of 16.
template <typename T>
__device__ inline void LoadVector(const T* from, float (&to)[kVector<T>]) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const T* const values = reinterpret_cast<const T*>(&bits);
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) to[i] = ToFloat(values[i]);
}

template <typename T>
__device__ inline void StoreVector(T* to, const float (&from)[kVector<T>]) {
  uint4 bits;
  T* const values = reinterpret_cast<T*>(&bits);
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) values[i] = FromFloat<T>(from[i]);
  *reinterpret_cast<uint4*>(to) = bits;
}

// Calls f.operator()<float>() or <Bf16>(), by the type, which RequireFloat(OnGpu(..)) has accepted.
template <typename F>
void DispatchFloatGpu(DType dtype, const F& f) {
  if (dtype == DType::kBf16) {
    f.template operator()<Bf16>();
  } else {
    f.template operator()<float>();
  }
}

// The typed pointer of a tensor whose type has been checked; null stays null.
template <typename T>
T* GpuData(const Tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

// ---- Reductions: every thread gets the result, the order of additions is fixed -------------------------------------

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

template <typename T>
__device__ inline T WarpSum(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

__device__ inline float WarpMax(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

// For blocks of one dimension, whole warps, all threads. May be called again at once.
template <typename T>
__device__ inline T BlockSum(T x) {
  __shared__ T parts[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  x = WarpSum(x);
  __syncthreads();
  if (lane == 0) parts[warp] = x;
  __syncthreads();
  return WarpSum(lane < warps ? parts[lane] : T(0));
}

__device__ inline float BlockMax(float x) {
  __shared__ float parts[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  x = WarpMax(x);
  __syncthreads();
  if (lane == 0) parts[warp] = x;
  __syncthreads();
  return WarpMax(lane < warps ? parts[lane] : -INFINITY);
}

// ---- Grids ---------------------------------------------------------------------------------------------------------

// Blocks for `count` items, `per_block` each, for the grid's first dimension. Launch none when it is 0.
inline unsigned GridFor(int64_t count, int64_t per_block) {
  const int64_t blocks = CeilDiv(count, per_block);
  LS_CHECK(blocks <= INT32_MAX, "a launch of {} blocks is more than a grid holds", blocks);
  return static_cast<unsigned>(blocks);
}

// This thread's first item and the distance to its next, of a one-dimensional grid.
__device__ inline int64_t GridThread() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t GridThreads() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// ---- Faults --------------------------------------------------------------------------------------------------------

// Says that `value` at `position` is not in [0,limit); the stream's Synchronize throws it. Several threads may: one
// stays. One 8-byte store, so that no other's is mixed in.
__device__ inline void ReportFault(GpuFaults* faults, GpuFault kind, int64_t position, int32_t value, int64_t limit) {
  faults->limit[static_cast<int>(kind)] = limit;
  *static_cast<volatile unsigned long long*>(&faults->found[static_cast<int>(kind)]) =
      1ULL << 63 | static_cast<unsigned long long>(position & 0x7FFFFFFF) << 32 | static_cast<uint32_t>(value);
}

}  // namespace longspan
