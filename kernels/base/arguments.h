// What launchers ask of their arguments, at once, before anything is enqueued. Errors name the operation and the
// argument: "dense.rope: positions: expected I32 [8], found I64 [8]".
#pragma once

#include "runtime/tensor.h"

namespace longspan {

// The operation that asks, and where its tensors must be. The CPU computes in F32 or F64, a GPU in F32 or BF16.
struct Operation {
  Operation(const char* text) : name(text) {}
  Operation(const char* text, DeviceKind where) : name(text), device(where) {}
  const char* name;
  DeviceKind device = DeviceKind::kCpu;
};
inline Operation OnGpu(const char* name) { return {name, DeviceKind::kGpu}; }

// The type of sums and gradients that accumulate, in an operation whose other tensors have this type: on the CPU the
// same, on a GPU F32.
inline DType SumType(const Operation& operation, DType dtype) {
  return operation.device == DeviceKind::kGpu ? DType::kF32 : dtype;
}

// A contiguous tensor of this type and shape on the operation's device; its data may be null only when it has no
// elements.
void RequireTensor(const Operation& operation, const char* name, const Tensor& tensor, DType dtype, const Shape& shape);

// The same, of any shape; a floating type of the device. Returns the type.
DType RequireFloat(const Operation& operation, const char* name, const Tensor& tensor);

// The same, of any shape and type.
void RequireContiguous(const Operation& operation, const char* name, const Tensor& tensor);

// Exactly this many dimensions.
void RequireRank(const Operation& operation, const char* name, const Tensor& tensor, int rank);

// Calls f.operator()<float>() or <double>(), by the type, which RequireFloat has accepted.
template <typename F>
void DispatchFloat(DType dtype, const F& f) {
  if (dtype == DType::kF64) {
    f.template operator()<double>();
  } else {
    f.template operator()<float>();
  }
}

}  // namespace longspan
