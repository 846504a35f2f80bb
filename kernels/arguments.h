// What launchers ask of their arguments, at once, before anything is enqueued. Errors name the operation and the
// argument: "dense.rope: positions: expected I32 [8], found I64 [8]".
#pragma once

#include "runtime/tensor.h"

namespace longspan {

// A contiguous CPU tensor of this type and shape; its data may be null only when it has no elements.
void RequireTensor(const char* operation, const char* name, const Tensor& tensor, DType dtype, const Shape& shape);

// The same, of any shape; a floating type (F32 or F64). Returns the type.
DType RequireFloat(const char* operation, const char* name, const Tensor& tensor);

// The same, of any shape and type.
void RequireContiguous(const char* operation, const char* name, const Tensor& tensor);

// Exactly this many dimensions.
void RequireRank(const char* operation, const char* name, const Tensor& tensor, int rank);

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
