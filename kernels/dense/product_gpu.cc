#include "kernels/base/arguments.h"
#include "kernels/dense/gpu.h"

namespace longspan {

void GpuDense::MatMul(Stream& stream, const MatMulArgs& args) {
  const Operation operation = OnGpu("dense.matmul");
  const DType dtype = RequireFloat(operation, "a", args.a);
  const DType result = RequireFloat(operation, "c", args.c);
  for (const auto& [name, tensor] : {std::pair("a", args.a), std::pair("b", args.b), std::pair("c", args.c)}) {
    RequireRank(operation, name, tensor, 2);
  }
  const int64_t m = args.c.dim(0), n = args.c.dim(1), k = args.a.dim(args.transpose_a ? 0 : 1);
  RequireTensor(operation, "a", args.a, dtype, args.transpose_a ? Shape{k, m} : Shape{m, k});
  RequireTensor(operation, "b", args.b, dtype, args.transpose_b ? Shape{n, k} : Shape{k, n});
  const double bytes = 1.0 * args.a.bytes() + args.b.bytes() + (args.accumulate ? 2.0 : 1.0) * args.c.bytes();
  LaunchGpu(stream, operation.name, Cost{2.0 * m * n * k, bytes}, [&](cudaStream_t) {
    matmul_.Run(stream,
                {.m = m,
                 .n = n,
                 .k = k,
                 .transpose_a = args.transpose_a,
                 .transpose_b = args.transpose_b,
                 .accumulate = args.accumulate,
                 .operands = dtype,
                 .result = result},
                args.a.data, args.b.data, args.c.data);
  });
}

}  // namespace longspan
