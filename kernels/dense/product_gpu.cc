#include "kernels/dense/check.h"
#include "kernels/dense/gpu.h"

namespace longspan {

void GpuDense::MatMul(Stream& stream, const MatMulArgs& args) {
  const Operation operation = OnGpu("dense.matmul");
  const DType dtype = CheckMatMul(operation, args);
  const MatMulSizes sizes = SizesOf(args);
  LaunchGpu(stream, operation.name, MatMulCost(args), [&](cudaStream_t) {
    matmul_.Run(stream,
                {.m = sizes.m,
                 .n = sizes.n,
                 .k = sizes.k,
                 .transpose_a = args.transpose_a,
                 .transpose_b = args.transpose_b,
                 .accumulate = args.accumulate || args.add,
                 .operands = dtype,
                 .result = args.c.dtype},
                args.a.data, args.b.data, args.c.data, args.add.data);
  });
}

}  // namespace longspan
