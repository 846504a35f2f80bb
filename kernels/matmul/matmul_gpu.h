// Matrix products by cuBLASLt, for whoever needs one inside an operation: c = op(a) op(b), or with accumulate plus c or
// plus another matrix. Row-major, contiguous. Operands BF16 or F32, both alike; c BF16 or F32; sums in F32, without
// TF32. The algorithm is chosen once per shape and kept, workspace is fixed: equal calls give equal bits.
#pragma once

#include <map>
#include <memory>
#include <tuple>

#include "runtime/gpu.h"

namespace longspan {

struct MatMulShape {
  int64_t m = 0, n = 0, k = 0;  // c is [m,n]
  bool transpose_a = false;     // a is [k,m]
  bool transpose_b = false;     // b is [n,k]
  bool accumulate = false;
  DType operands = DType::kF32;
  DType result = DType::kF32;
  uint32_t align_a = 0, align_b = 0, align_c = 0;  // bytes; set by Run
  auto Key() const {
    return std::tie(m, n, k, transpose_a, transpose_b, accumulate, operands, result, align_a, align_b, align_c);
  }
  bool operator<(const MatMulShape& other) const { return Key() < other.Key(); }
};

class MatMulGpu {
 public:
  explicit MatMulGpu(const std::string& what);
  ~MatMulGpu();
  // Inside a span of the caller's: adds none to the trace. Nothing happens when c is empty. With shape.accumulate the
  // product is added to `add`, of c's shape and type, or to c itself when it is null.
  void Run(Stream& stream, MatMulShape shape, const void* a, const void* b, void* c, const void* add = nullptr);

 private:
  struct Plan;
  struct Library;
  const Plan& PlanOf(const MatMulShape& shape);
  std::unique_ptr<Library> library_;
  std::map<MatMulShape, std::unique_ptr<Plan>> plans_;
  GpuScratch workspace_;
};

}  // namespace longspan
