#include "kernels/base/blocks_cpu.h"
#include "kernels/dense/check.h"
#include "kernels/dense/cpu.h"
#include "kernels/matmul/matmul_cpu.h"
#include "runtime/trace.h"

namespace longspan {

void CpuDense::MatMul(Stream& stream, const MatMulArgs& args) {
  constexpr const char* kName = "dense.matmul";
  const DType dtype = CheckMatMul(kName, args);
  Launch(stream, kName, MatMulCost(args), [args, dtype] {
    const MatMulSizes sizes = SizesOf(args);
    DispatchFloat(dtype, [&]<typename T>() {
      MatMulCpu<T>({.a = args.a.As<T>(),
                    .b = args.b.As<T>(),
                    .c = args.c.As<T>(),
                    .m = sizes.m,
                    .n = sizes.n,
                    .k = sizes.k,
                    .transpose_a = args.transpose_a,
                    .transpose_b = args.transpose_b,
                    .accumulate = args.accumulate,
                    .add = args.add ? args.add.As<T>() : nullptr});
    });
  });
}

void CpuDense::Add(Stream& stream, const Tensor& x, const Tensor& y) {
  constexpr const char* kName = "dense.add";
  const DType dtype = CheckAdd(kName, x, y);
  Launch(stream, kName, AddCost(y), [x, y, dtype] {
    DispatchFloat(dtype, [&]<typename T>() {
      const T* const from = x.As<T>();
      T* const to = y.As<T>();
      ForBlocks(y.size(), [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) to[i] += from[i];
      });
    });
  });
}

std::unique_ptr<DenseOps> MakeCpuDense() { return std::make_unique<CpuDense>(); }

}  // namespace longspan
