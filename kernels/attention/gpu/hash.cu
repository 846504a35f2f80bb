// The hash of a selection on the GPU: overwrites it.
#include <algorithm>

#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/attention.h"
#include "kernels/base/gpu_common.cuh"
#include "kernels/base/mix.h"

namespace longspan {
namespace {

// hash += the segment's entries; whole numbers, so that the order of the additions does not matter.
__global__ void HashKernel(const int32_t* selected, int64_t first, int64_t count, unsigned long long* hash) {
  unsigned long long sum = 0;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    sum += Mix(Mix(first + i + 1) ^ static_cast<uint32_t>(selected[i]));
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) atomicAdd(hash, sum);
}

}  // namespace

void GpuAttention::HashSelection(Stream& stream, const HashSelectionArgs& args) {
  const char* const name = "attention.hash_selection";
  CheckHashSelection(OnGpu(name), args);
  const int64_t width = args.selected.dim(1) * args.selected.dim(2);
  auto* const hash = static_cast<unsigned long long*>(args.hash.data);
  LaunchGpu(stream, name, {0, BytesOf({args.selected})}, [&](cudaStream_t on) {
    CudaCheck(cudaMemsetAsync(hash, 0, sizeof(*hash), on), name);
    for (const Segment& segment : args.segments) {
      const int64_t count = segment.length * width;
      if (count == 0) continue;
      const int32_t* const selected = args.selected.As<const int32_t>() + segment.row * width;
      const auto blocks = static_cast<unsigned>(std::min<int64_t>((count + 255) / 256, 1024));
      HashKernel<<<blocks, 256, 0, on>>>(selected, segment.begin * width, count, hash);
    }
  });
}

}  // namespace longspan
