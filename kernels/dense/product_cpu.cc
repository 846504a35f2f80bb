#include "kernels/base/arguments.h"
#include "kernels/base/blocks_cpu.h"
#include "kernels/dense/cpu.h"
#include "kernels/matmul/matmul_cpu.h"
#include "runtime/trace.h"

namespace longspan {

void CpuDense::MatMul(Stream& stream, const MatMulArgs& args) {
  constexpr const char* kName = "dense.matmul";
  const DType dtype = RequireFloat(kName, "c", args.c);
  for (const auto& [name, tensor] : {std::pair("a", args.a), std::pair("b", args.b), std::pair("c", args.c)}) {
    RequireRank(kName, name, tensor, 2);
  }
  const int64_t m = args.c.dim(0), n = args.c.dim(1), k = args.a.dim(args.transpose_a ? 0 : 1);
  RequireTensor(kName, "a", args.a, dtype, args.transpose_a ? Shape{k, m} : Shape{m, k});
  RequireTensor(kName, "b", args.b, dtype, args.transpose_b ? Shape{n, k} : Shape{k, n});
  const double elements = m * k + k * n + (args.accumulate ? 2 : 1) * m * n;
  const Cost cost{2.0 * m * n * k, elements * DTypeSize(dtype)};
  Launch(stream, kName, cost, [args, dtype, m, n, k] {
    DispatchFloat(dtype, [&]<typename T>() {
      MatMulCpu(args.a.As<T>(), args.b.As<T>(), args.c.As<T>(), m, n, k, args.transpose_a, args.transpose_b,
                args.accumulate);
    });
  });
}

void CpuDense::Add(Stream& stream, const Tensor& x, const Tensor& y) {
  constexpr const char* kName = "dense.add";
  const DType dtype = RequireFloat(kName, "y", y);
  RequireTensor(kName, "x", x, dtype, y.shape);
  Launch(stream, kName, Cost{1.0 * y.size(), 3.0 * y.bytes()}, [x, y, dtype] {
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
