#include "kernels/attention/sm90/tensor_map.cuh"

#include <cudaTypedefs.h>
#include <fmt/ranges.h>

#include <vector>

#include "runtime/error.h"
#include "runtime/gpu.h"

namespace longspan {
namespace {

// The driver's function, asked for at run time: nothing links the driver's library.
PFN_cuTensorMapEncodeTiled_v12000 Encoder(const char* operation) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  CudaCheck(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
            operation);
  LS_CHECK(found == cudaDriverEntryPointSuccess, "{}: expected a driver that makes tensor maps (CUDA 12), found none",
           operation);
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

// Boxes swizzled; `strides` in bytes, of all dimensions but the first.
CUtensorMap Encode(const char* operation, CUtensorMapDataType type, const void* x, const std::vector<cuuint64_t>& sizes,
                   const std::vector<cuuint64_t>& strides, const std::vector<cuuint32_t>& box) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = Encoder(operation);
  const std::vector<cuuint32_t> steps(sizes.size(), 1);
  CUtensorMap map;
  const CUresult result =
      encode(&map, type, static_cast<cuuint32_t>(sizes.size()), const_cast<void*>(x), sizes.data(), strides.data(),
             box.data(), steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  LS_CHECK(result == CUDA_SUCCESS, "{}: expected a tensor map of sizes {}, found error {}", operation,
           fmt::join(sizes, ","), static_cast<int>(result));
  return map;
}

// Boxes of 128 bytes of channels.
CUtensorMap Map(const char* operation, CUtensorMapDataType type, int element_bytes, const void* x, int64_t rows,
                int64_t heads, int64_t width, int box_rows, int box_heads) {
  const cuuint64_t row_bytes = element_bytes * width;
  return Encode(operation, type, x,
                {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(heads), static_cast<cuuint64_t>(rows)},
                {row_bytes, row_bytes * heads},
                {static_cast<cuuint32_t>(128 / element_bytes), static_cast<cuuint32_t>(box_heads),
                 static_cast<cuuint32_t>(box_rows)});
}

}  // namespace

CUtensorMap RowsMap(const char* operation, const void* x, int64_t rows, int64_t heads, int64_t width, int box_rows,
                    int box_heads) {
  return Map(operation, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, x, rows, heads, width, box_rows, box_heads);
}

CUtensorMap SumsMap(const char* operation, float* x, int64_t rows, int64_t heads, int64_t width, int box_rows,
                    int box_heads) {
  return Map(operation, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, x, rows, heads, width, box_rows, box_heads);
}

CUtensorMap QueriesMap(const char* operation, const void* x, int64_t queries, int parts, int part_heads, int64_t width,
                       bool whole) {
  const cuuint64_t row_bytes = 2 * width;
  const auto heads = static_cast<cuuint32_t>(part_heads), chunks = static_cast<cuuint32_t>(width / 64);
  const auto all_parts = static_cast<cuuint32_t>(parts);
  const std::vector<cuuint32_t> box =
      whole ? std::vector<cuuint32_t>{64, 8, chunks, all_parts, 1} : std::vector<cuuint32_t>{64, heads, 1, 1, 1};
  return Encode(operation, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, x,
                {64, heads, chunks, all_parts, static_cast<cuuint64_t>(queries)},
                {row_bytes, 128, row_bytes * heads, row_bytes * heads * parts}, box);
}

}  // namespace longspan
