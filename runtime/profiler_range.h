// What the calling thread is at, as ranges for a profiler of NVIDIA's (NVTX; Nsight Systems shows them over kernels).
// Nothing where no such profiler is attached, and in a build without CUDA or NVTX.
#pragma once

#include <cstdint>

namespace longspan {

// Within the range that the thread pushed before. A number of 0 or more is shown beside the name.
void PushRange(const char* name, int64_t number = -1);
void PopRange();

}  // namespace longspan
