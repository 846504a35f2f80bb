// What compression's forward and backward share on the GPU (contracts in kernels/attention/ops.h).
//
// Compressed rows are worked on in panels of kPanelRows rows of one matrix, zeros below the last: the products have
// always the same shape, so that cuBLASLt takes one algorithm and a row gets the same bits whatever rows are beside it.
//
// Roundings of a BF16 call: x + position, the hidden layer after GELU and y in the forward; d_y and the hidden layer's
// gradient in the backward. Everything else stays in F32.
#pragma once

#include <vector>

#include "kernels/attention/gpu/attention.h"
#include "kernels/attention/gpu/pages.cuh"
#include "kernels/base/gpu_common.cuh"

namespace longspan {

constexpr int64_t kPanelRows = 4096;
constexpr int64_t kMaxCompressBlock = 4096;  // rows whose places a thread block keeps in shared memory

// Compressed tokens [token, token+count) x groups [group, group+groups), token by token; token's row of y is y_row.
struct CompressPanelGpu {
  int64_t token = 0;
  int64_t count = 0;
  int64_t y_row = 0;
  int64_t group = 0;
  int64_t groups = 0;
  __host__ __device__ int64_t rows() const { return count * groups; }
};

// No panel holds two segments; those of one segment and group ascend. MLP takes all groups in one panel (they share
// weights), LINEAR one; MEAN has no products, and one panel a segment. Throws Error for what the GPU does not support.
std::vector<CompressPanelGpu> CutCompressPanels(const char* operation, const CompressArgs& args);

// blocks[kPanelRows, block*W] of the call's type = the rows of x, plus the position encoding; zeros below.
void GatherBlocksGpu(cudaStream_t stream, DType dtype, const CompressArgs& args, const CompressPanelGpu& panel,
                     void* blocks);

// of normal distribution: the part below x
__device__ inline float NormalBelow(float x) { return 0.5f * (1 + erff(x * 0.70710678f)); }

}  // namespace longspan
