#include "runtime/gpu.h"

#include <fmt/format.h>

#include "runtime/memory.h"

namespace longspan {

void CudaCheck(cudaError_t status, const char* what, const char* file, int line) {
  if (status == cudaSuccess) return;
  const char* const hint =
      status == cudaErrorNoKernelImageForDevice
          ? "; this program was built for other GPUs: build with CMAKE_CUDA_ARCHITECTURES for this one"
          : "";
  ThrowError(ExitCode::kRankFailed, file, line,
             fmt::format("{}: CUDA: {} ({}){}", what, cudaGetErrorString(status), cudaGetErrorName(status), hint));
}

GpuScratch::~GpuScratch() {
  for (const auto& [stream, block] : blocks_) {
    cudaFree(block.data);
    CountScratch(-block.bytes);
  }
}

void* GpuScratch::Get(Stream& stream, int64_t bytes) {
  Block& block = blocks_[CudaStream(stream)];
  if (bytes <= block.bytes) return block.data;
  const int64_t freed = block.bytes;
  cudaFree(block.data);  // waits for the kernels that use it
  block = {};
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    FailForMemory(
        "out of GPU memory: scratch of {} needs {} MiB; shorten the sequence, split it over more ranks, or leave other "
        "programs less",
        what_, (bytes >> 20) + 1);
  }
  CudaCheck(status, what_.c_str());
  CountAllocation();
  CountScratch(bytes - freed);
  block = {data, bytes};
  return block.data;
}

}  // namespace longspan
