#include "runtime/gpu.h"
#include "tests/kernels/attention/held_processors_gpu.h"

namespace longspan::test {

struct HeldProcessors::State {
  int begun = 0, free = 0, late = 0;
};

namespace {

constexpr int kSharedBytes = 200 << 10;                   // nothing else has room beside it
constexpr unsigned long long kLimit = 10'000'000'000ull;  // ns

__device__ unsigned long long Now() {
  unsigned long long now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}

__global__ void Hold(int* begun, volatile int* free, volatile int* late) {
  atomicAdd_system(begun, 1);
  const unsigned long long end = Now() + kLimit;
  while (*free == 0) {
    __nanosleep(1000);
    if (Now() < end) continue;
    *late = 1;
    return;
  }
}

}  // namespace

HeldProcessors::HeldProcessors(int left) {
  const char* const what = "held processors";
  int device = 0, processors = 0;
  CudaCheck(cudaGetDevice(&device), what);
  CudaCheck(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), what);
  void* memory = nullptr;
  CudaCheck(cudaHostAlloc(&memory, sizeof(State), cudaHostAllocMapped), what);
  state_ = new (memory) State;
  CudaCheck(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), what);
  CudaCheck(cudaFuncSetAttribute(Hold, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes), what);
  Hold<<<processors - left, 1, kSharedBytes, stream_>>>(&state_->begun, &state_->free, &state_->late);
  CudaCheck(cudaGetLastError(), what);
  while (*static_cast<volatile int*>(&state_->begun) < processors - left) {
  }
}

HeldProcessors::~HeldProcessors() {
  Release();
  cudaStreamDestroy(stream_);
  cudaFreeHost(state_);
}

bool HeldProcessors::Release() {
  *static_cast<volatile int*>(&state_->free) = 1;
  CudaCheck(cudaStreamSynchronize(stream_), "held processors");
  return state_->late == 0;
}

}  // namespace longspan::test
