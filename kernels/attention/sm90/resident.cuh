// Launches of blocks that stay.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/gpu.h"

namespace longspan {

// Blocks that stay and take `items` in turn: one a multiprocessor.
inline int ResidentBlocks(const char* operation, int64_t items) {
  int device = 0, processors = 0;
  CudaCheck(cudaGetDevice(&device), operation);
  CudaCheck(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), operation);
  LS_CHECK(items <= INT32_MAX - processors, "{}: q: expected fewer than 2^31 tiles, found {}", operation, items);
  return static_cast<int>(std::min<int64_t>(items, processors));
}

}  // namespace longspan
