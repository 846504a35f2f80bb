// The hash of a tensor's bytes on the GPU, a thread a word in turn: whole numbers, so that atomic additions do not
// depend on their order. Bound by reading x.
#include "kernels/base/gpu_common.cuh"
#include "kernels/base/mix.h"
#include "kernels/train/check.h"
#include "kernels/train/gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) HashKernel(const uint64_t* words, int64_t count, unsigned long long* hash) {
  unsigned long long sum = 0;
  for (int64_t i = GridThread(); i < count; i += GridThreads()) {
    sum += Mix(Mix(static_cast<uint64_t>(i) + 1) ^ words[i]);
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) atomicAdd(hash, sum);
}

}  // namespace

void GpuTrain::Hash(Stream& stream, const Tensor& x, const Tensor& hash) {
  const Operation operation = OnGpu("train.hash");
  CheckHash(operation, x, hash);
  LaunchGpu(stream, operation.name, {0, static_cast<double>(x.bytes())}, [&](cudaStream_t cuda) {
    auto* const sum = static_cast<unsigned long long*>(hash.data);
    CudaCheck(cudaMemsetAsync(sum, 0, sizeof(*sum), cuda), operation.name);
    const int64_t count = x.bytes() / 8;
    if (count == 0) return;
    HashKernel<<<GridFor(count, kThreads), kThreads, 0, cuda>>>(static_cast<const uint64_t*>(x.data), count, sum);
  });
}

}  // namespace longspan
