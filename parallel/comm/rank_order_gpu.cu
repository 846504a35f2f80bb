// One thread an element, parts read one after another: bound by memory bandwidth.
#include <cuda_bf16.h>

#include <algorithm>
#include <type_traits>

#include "parallel/comm/rank_order_gpu.h"
#include "runtime/error.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

template <ReduceOp op, typename T>
__global__ void ReduceRanks(RankParts in, T* result, int64_t count) {
  using Wide = std::conditional_t<std::is_same_v<T, __nv_bfloat16>, float, T>;
  const T* const parts = static_cast<const T*>(in.parts);
  const T* const own = static_cast<const T*>(in.own);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    const auto part = [&](int rank) {
      return static_cast<Wide>(rank == in.own_rank ? own[i] : parts[rank * in.stride + i]);
    };
    Wide sum = part(0);
    for (int rank = 1; rank < in.ranks; ++rank) sum = Reduced<op, Wide>(sum, part(rank));
    result[i] = static_cast<T>(sum);
  }
}

template <typename T>
void ReduceTyped(cudaStream_t stream, ReduceOp op, const RankParts& parts, void* result, int64_t count) {
  const auto blocks = static_cast<unsigned>(std::min(kMaxBlocks, CeilDiv(count, kThreads)));
  T* const out = static_cast<T*>(result);
  switch (op) {
    case ReduceOp::kSum:
      ReduceRanks<ReduceOp::kSum, T><<<blocks, kThreads, 0, stream>>>(parts, out, count);
      return;
    case ReduceOp::kMax:
      ReduceRanks<ReduceOp::kMax, T><<<blocks, kThreads, 0, stream>>>(parts, out, count);
      return;
  }
}

}  // namespace

void ReduceInOrderGpu(cudaStream_t stream, DType dtype, ReduceOp op, const RankParts& parts, void* result,
                      int64_t count) {
  if (count == 0) return;
  switch (dtype) {
    case DType::kF32:
      return ReduceTyped<float>(stream, op, parts, result, count);
    case DType::kF64:
      return ReduceTyped<double>(stream, op, parts, result, count);
    case DType::kBf16:
      return ReduceTyped<__nv_bfloat16>(stream, op, parts, result, count);
    case DType::kI32:
      return ReduceTyped<int32_t>(stream, op, parts, result, count);
    case DType::kI64:
      return ReduceTyped<int64_t>(stream, op, parts, result, count);
    default:
      Fail(ExitCode::kRankFailed, "reduction of {}: expected F32, F64, BF16, I32 or I64", DTypeName(dtype));
  }
}

}  // namespace longspan
