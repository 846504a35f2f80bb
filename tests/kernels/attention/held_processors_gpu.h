// Multiprocessors that a test keeps from the kernels it looks at, as other kernels may.
#pragma once

#include <cuda_runtime_api.h>

namespace longspan::test {

class HeldProcessors {
 public:
  // All but `left`, from when this returns on until Release or the end of the time limit.
  explicit HeldProcessors(int left);
  ~HeldProcessors();
  HeldProcessors(const HeldProcessors&) = delete;
  HeldProcessors& operator=(const HeldProcessors&) = delete;

  // Whether they had been held until now.
  bool Release();

 private:
  struct State;
  State* state_;  // the host's memory, which the GPU sees
  cudaStream_t stream_ = nullptr;
};

}  // namespace longspan::test
