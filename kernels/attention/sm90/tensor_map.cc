#include "kernels/attention/sm90/tensor_map.cuh"

#include <cudaTypedefs.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>

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

// Boxes swizzled in rows of 128 bytes; `strides`, in elements, of all dimensions but the first.
CUtensorMap Encode(const char* operation, CUtensorMapDataType type, const void* x, std::initializer_list<int64_t> sizes,
                   std::initializer_list<int64_t> strides, std::initializer_list<int64_t> box) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = Encoder(operation);
  constexpr int kMaxRank = 5;
  const int element_bytes = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32 ? 4 : 2;
  cuuint64_t size[kMaxRank], stride_bytes[kMaxRank];
  cuuint32_t box_size[kMaxRank], steps[kMaxRank];
  // Of an empty tensor nothing is brought, but a map has no empty dimension.
  std::transform(sizes.begin(), sizes.end(), size, [](int64_t x) { return std::max<int64_t>(x, 1); });
  std::transform(strides.begin(), strides.end(), stride_bytes, [&](int64_t stride) { return element_bytes * stride; });
  std::copy(box.begin(), box.end(), box_size);
  std::fill_n(steps, kMaxRank, 1);
  CUtensorMap map;
  const CUresult result =
      encode(&map, type, static_cast<cuuint32_t>(sizes.size()), const_cast<void*>(x), size, stride_bytes, box_size,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  LS_CHECK(result == CUDA_SUCCESS, "{}: expected a tensor map of [{}], found error {}", operation,
           fmt::join(sizes, ","), static_cast<int>(result));
  return map;
}

}  // namespace

CUtensorMap RowsMap(const char* operation, const void* x, int64_t rows, int64_t heads, int64_t width, int box_rows,
                    int box_heads) {
  return Encode(operation, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, x, {width, heads, rows}, {width, width * heads},
                {64, box_heads, box_rows});
}

CUtensorMap SumsMap(const char* operation, float* x, int64_t rows, int64_t heads, int64_t width, int box_rows,
                    int box_heads) {
  return Encode(operation, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, x, {width, heads, rows}, {width, width * heads},
                {32, box_heads, box_rows});
}

CUtensorMap QueriesMap(const char* operation, const void* x, int64_t queries, int parts, int part_heads, int64_t width,
                       bool whole) {
  const int64_t part = width * part_heads;
  return Encode(operation, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, x, {64, part_heads, width / 64, parts, queries},
                {width, 64, part, part * parts},
                {64, whole ? 8 : part_heads, whole ? width / 64 : 1, whole ? parts : 1, 1});
}

CUtensorMap HeadRowsMap(const char* operation, const void* x, int64_t rows, int64_t heads, int64_t width, int box_rows,
                        int box_heads) {
  return Encode(operation, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, x, {64, rows, heads, width / 64},
                {width * heads, width, 64}, {64, box_rows, box_heads, 1});
}

}  // namespace longspan
