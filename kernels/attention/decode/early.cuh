// Launches that overlap: on compute capability 9.0 and later a kernel's blocks are brought to the multiprocessors while
// the kernel before it in the stream ends, and wait there for its results.
#pragma once

#include "kernels/base/gpu_common.cuh"

namespace longspan {

// First of all in every block of a kernel that LaunchEarly launches: what earlier kernels wrote is there afterwards.
__device__ __forceinline__ void WaitForEarlier() {
#if __CUDA_ARCH__ >= 900 && !defined(LONGSPAN_DECODE_LATE)
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

inline bool LaunchesEarly() {
  int device = 0, major = 0;
  CudaCheck(cudaGetDevice(&device), "decode");
  CudaCheck(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "decode");
#ifdef LONGSPAN_DECODE_LATE
  return false;
#endif
  return major >= 9;
}

template <typename... Params, typename... Args>
void LaunchEarly(cudaStream_t stream, void (*kernel)(Params...), dim3 grid, int threads, int64_t shared_bytes,
                 const Args&... args) {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = LaunchesEarly() ? 1 : 0;
  CudaCheck(cudaLaunchKernelEx(&config, kernel, Params(args)...), "decode");
}

}  // namespace longspan
