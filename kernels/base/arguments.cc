#include "kernels/base/arguments.h"

namespace longspan {

void RequireContiguous(const Operation& operation, const char* name, const Tensor& tensor) {
  LS_CHECK(tensor.device == operation.device, "{}: {}: expected a tensor on {}, found one on {}", operation.name, name,
           DeviceName(operation.device), DeviceName(tensor.device));
  LS_CHECK(tensor.contiguous(), "{}: {}: expected a contiguous tensor, found {} with strides", operation.name, name,
           tensor.shape.ToString());
  LS_CHECK(tensor.data != nullptr || tensor.size() == 0, "{}: {}: expected a tensor, found none", operation.name, name);
}

void RequireTensor(const Operation& operation, const char* name, const Tensor& tensor, DType dtype,
                   const Shape& shape) {
  LS_CHECK(tensor.dtype == dtype && tensor.shape == shape, "{}: {}: expected {} {}, found {} {}", operation.name, name,
           DTypeName(dtype), shape.ToString(), DTypeName(tensor.dtype), tensor.shape.ToString());
  RequireContiguous(operation, name, tensor);
}

DType RequireFloat(const Operation& operation, const char* name, const Tensor& tensor) {
  const DType other = operation.device == DeviceKind::kGpu ? DType::kBf16 : DType::kF64;
  LS_CHECK(tensor.dtype == DType::kF32 || tensor.dtype == other, "{}: {}: expected F32 or {}, found {}", operation.name,
           name, DTypeName(other), DTypeName(tensor.dtype));
  RequireContiguous(operation, name, tensor);
  return tensor.dtype;
}

void RequireRank(const Operation& operation, const char* name, const Tensor& tensor, int rank) {
  LS_CHECK(tensor.shape.rank() == rank, "{}: {}: expected {} dimensions, found {}", operation.name, name, rank,
           tensor.shape.ToString());
}

}  // namespace longspan
