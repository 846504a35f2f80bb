// Launches of blocks that stay.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/gpu.h"

namespace longspan {

// Blocks that stay and take `items` in turn: one a multiprocessor, but for those that are left to others.
inline int ResidentBlocks(const char* operation, int64_t items, int left_processors) {
  int device = 0, processors = 0;
  CudaCheck(cudaGetDevice(&device), operation);
  CudaCheck(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), operation);
  LS_CHECK(items <= INT32_MAX - processors, "{}: q: expected fewer than 2^31 tiles, found {}", operation, items);
  return static_cast<int>(std::min<int64_t>(items, std::max(1, processors - left_processors)));
}

}  // namespace longspan
