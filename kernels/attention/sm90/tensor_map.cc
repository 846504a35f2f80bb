#include "kernels/attention/sm90/tensor_map.cuh"

#include <cudaTypedefs.h>

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

// Boxes of 128 bytes of channels.
CUtensorMap Map(const char* operation, CUtensorMapDataType type, int element_bytes, void* x, int64_t rows,
                int64_t heads, int64_t width, int box_rows, int box_heads) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = Encoder(operation);
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(heads),
                              static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(element_bytes * width),
                                static_cast<cuuint64_t>(element_bytes * width * heads)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(128 / element_bytes), static_cast<cuuint32_t>(box_heads),
                            static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encode(&map, type, 3, x, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  LS_CHECK(result == CUDA_SUCCESS, "{}: expected a tensor map of [{},{},{}], found error {}", operation, rows, heads,
           width, static_cast<int>(result));
  return map;
}

}  // namespace

CUtensorMap RowsMap(const char* operation, const void* x, int64_t rows, int64_t heads, int64_t width, int box_rows,
                    int box_heads) {
  return Map(operation, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(x), rows, heads, width, box_rows,
             box_heads);
}

CUtensorMap SumsMap(const char* operation, float* x, int64_t rows, int64_t heads, int64_t width, int box_rows,
                    int box_heads) {
  return Map(operation, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, x, rows, heads, width, box_rows, box_heads);
}

}  // namespace longspan
