// Combination: overwrites its outputs, forward and backward. Sixteen lanes take a row (one head of a token); bound by
// memory.
#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/attention.h"
#include "kernels/base/gpu_common.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 16;
constexpr int kRows = kThreads / kLanes;

template <typename T>
struct Branches {
  const T* gates;  // [rows,3]
  const T* o[3];   // [rows,width]
  int64_t rows;
  int width;
};

template <typename T>
Branches<T> BranchesOf(const CombineArgs& args) {
  return {GpuData<const T>(args.gates),
          {GpuData<const T>(args.o_cmp), GpuData<const T>(args.o_slc), GpuData<const T>(args.o_win)},
          args.o_cmp.dim(0) * args.o_cmp.dim(1),
          static_cast<int>(args.o_cmp.dim(2))};
}

// Elements [at, at+Count), Count = 1 or those of 16 bytes.
template <int Count, typename T>
__device__ void Read(const T* at, float (&values)[Count]) {
  if constexpr (Count == 1) {
    values[0] = ToFloat(*at);
  } else {
    LoadVector<T>(at, values);
  }
}

template <int Count, typename T>
__device__ void Write(T* at, const float (&values)[Count]) {
  if constexpr (Count == 1) {
    *at = FromFloat<T>(values[0]);
  } else {
    StoreVector<T>(at, values);
  }
}

template <typename T, int Count>
__global__ void CombineKernel(Branches<T> in, T* o) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kLanes;
  if (row >= in.rows) return;
  float gate[3];
  for (int branch = 0; branch < 3; ++branch) gate[branch] = ToFloat(in.gates[row * 3 + branch]);
  for (int c = threadIdx.x % kLanes * Count; c < in.width; c += kLanes * Count) {
    float sum[Count] = {};
#pragma unroll
    for (int branch = 0; branch < 3; ++branch) {
      float value[Count];
      Read<Count>(in.o[branch] + row * in.width + c, value);
#pragma unroll
      for (int i = 0; i < Count; ++i) sum[i] += gate[branch] * value[i];
    }
    Write<Count>(o + row * in.width + c, sum);
  }
}

template <typename T, int Count>
__global__ void CombineBackwardKernel(Branches<T> in, const T* d_o, float* d_gates) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kLanes;
  const bool inside = row < in.rows;  // all lanes stay for the sums
  float d_gate[3] = {};
  for (int c = threadIdx.x % kLanes * Count; inside && c < in.width; c += kLanes * Count) {
    float d[Count];
    Read<Count>(d_o + row * in.width + c, d);
#pragma unroll
    for (int branch = 0; branch < 3; ++branch) {
      float value[Count];
      Read<Count>(in.o[branch] + row * in.width + c, value);
#pragma unroll
      for (int i = 0; i < Count; ++i) d_gate[branch] += d[i] * value[i];
    }
  }
#pragma unroll
  for (int branch = 0; branch < 3; ++branch) {
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2) {
      d_gate[branch] += __shfl_xor_sync(kAllLanes, d_gate[branch], offset);
    }
    if (inside && threadIdx.x % kLanes == 0) d_gates[row * 3 + branch] = d_gate[branch];
  }
}

// Calls launch.operator()<T, Count>(), Count elements an access.
template <typename Launch>
void DispatchAccess(DType dtype, int64_t width, const Launch& launch) {
  DispatchFloatGpu(dtype, [&]<typename T>() {
    if (width % kVector<T> == 0) {
      launch.template operator()<T, kVector<T>>();
    } else {
      launch.template operator()<T, 1>();
    }
  });
}

}  // namespace

void GpuAttention::Combine(Stream& stream, const CombineArgs& args) {
  const char* const name = "attention.combine";
  const DType dtype = CheckCombine(OnGpu(name), args);
  RequireTensor(OnGpu(name), "o", args.o, dtype, args.o_cmp.shape);
  LaunchGpu(stream, name, CombineCost(args), [&](cudaStream_t cuda_stream) {
    if (args.o.size() == 0) return;
    DispatchAccess(dtype, args.o.dim(2), [&]<typename T, int Count>() {
      const Branches<T> in = BranchesOf<T>(args);
      CombineKernel<T, Count><<<GridFor(in.rows, kRows), kThreads, 0, cuda_stream>>>(in, GpuData<T>(args.o));
    });
  });
}

void GpuAttention::CombineBackward(Stream& stream, const CombineArgs& args, const CombineGradient& gradient) {
  const char* const name = "attention.combine_backward";
  const DType dtype = CheckCombineGradient(OnGpu(name), args, gradient);
  LaunchGpu(stream, name, CombineBackwardCost(args, gradient), [&](cudaStream_t cuda_stream) {
    if (gradient.d_o.size() == 0) return;
    DispatchAccess(dtype, gradient.d_o.dim(2), [&]<typename T, int Count>() {
      const Branches<T> in = BranchesOf<T>(args);
      CombineBackwardKernel<T, Count><<<GridFor(in.rows, kRows), kThreads, 0, cuda_stream>>>(
          in, GpuData<const T>(gradient.d_o), GpuData<float>(gradient.d_gates));
    });
  });
}

}  // namespace longspan
