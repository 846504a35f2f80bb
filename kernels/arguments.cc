#include "kernels/arguments.h"

namespace longspan {

void RequireContiguous(const char* operation, const char* name, const Tensor& tensor) {
  LS_CHECK(tensor.device == DeviceKind::kCpu, "{}: {}: expected a tensor on cpu, found one on {}", operation, name,
           DeviceName(tensor.device));
  LS_CHECK(tensor.contiguous(), "{}: {}: expected a contiguous tensor, found {} with strides", operation, name,
           tensor.shape.ToString());
  LS_CHECK(tensor.data != nullptr || tensor.size() == 0, "{}: {}: expected a tensor, found none", operation, name);
}

void RequireTensor(const char* operation, const char* name, const Tensor& tensor, DType dtype, const Shape& shape) {
  LS_CHECK(tensor.dtype == dtype && tensor.shape == shape, "{}: {}: expected {} {}, found {} {}", operation, name,
           DTypeName(dtype), shape.ToString(), DTypeName(tensor.dtype), tensor.shape.ToString());
  RequireContiguous(operation, name, tensor);
}

DType RequireFloat(const char* operation, const char* name, const Tensor& tensor) {
  LS_CHECK(tensor.dtype == DType::kF32 || tensor.dtype == DType::kF64, "{}: {}: expected F32 or F64, found {}",
           operation, name, DTypeName(tensor.dtype));
  RequireContiguous(operation, name, tensor);
  return tensor.dtype;
}

void RequireRank(const char* operation, const char* name, const Tensor& tensor, int rank) {
  LS_CHECK(tensor.shape.rank() == rank, "{}: {}: expected {} dimensions, found {}", operation, name, rank,
           tensor.shape.ToString());
}

}  // namespace longspan
