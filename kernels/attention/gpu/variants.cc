#include "kernels/attention/gpu/variants.h"

#include <array>
#include <vector>

namespace longspan {
namespace {

constexpr std::array kNewestFirst = {&kSm80Attention, &kPlainAttention};
using Runnable = std::array<const AttentionKernels*, kNewestFirst.size() + 1>;

std::vector<Runnable> FindRunnable() {
  const char* const what = "the attention kernels' choice";
  int devices = 0;
  CudaCheck(cudaGetDeviceCount(&devices), what);
  std::vector<Runnable> found(devices);
  for (int device = 0; device < devices; ++device) {
    int major = 0, minor = 0;
    CudaCheck(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), what);
    CudaCheck(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), what);
    auto next = found[device].begin();
    for (const AttentionKernels* const set : kNewestFirst) {
      const int capability = 10 * major + minor;
      if (set->oldest <= capability && capability <= set->newest) *next++ = set;
    }
  }
  return found;
}

}  // namespace

const AttentionKernels* const* RunnableKernels() {
  static const std::vector<Runnable> of_device = FindRunnable();
  int device = 0;
  CudaCheck(cudaGetDevice(&device), "the attention kernels' choice");
  return of_device[device].data();
}

}  // namespace longspan
