#include "runtime/tensor.h"

#include <fmt/ranges.h>

namespace longspan {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 58;  // their bytes, and sums of several such, fit int64

}  // namespace

int64_t DTypeSize(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBf16:
    case DType::kU16:
      return 2;
    case DType::kU8:
      return 1;
  }
  return 0;
}

const char* DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF64:
      return "F64";
    case DType::kBf16:
      return "BF16";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    case DType::kU8:
      return "U8";
    case DType::kU16:
      return "U16";
  }
  return "?";
}

const char* DeviceName(DeviceKind kind) { return kind == DeviceKind::kCpu ? "cpu" : "gpu"; }

Shape::Shape(std::span<const int64_t> dims) {
  LS_CHECK(dims.size() <= kMaxRank, "a shape has at most {} dimensions, found {}", kMaxRank, dims.size());
  int64_t product = 1;
  for (int64_t dim : dims) {
    LS_CHECK(dim >= 0, "a dimension is not negative, found {}", dim);
    dims_[rank_++] = dim;
    LS_CHECK(!__builtin_mul_overflow(product, dim, &product) && product <= kMostElements,
             "a tensor [{}] has too many elements, the most are {}", fmt::join(dims, ","), kMostElements);
  }
}

int64_t Shape::count() const {
  int64_t product = 1;
  for (int i = 0; i < rank_; ++i) product *= dims_[i];
  return product;
}

std::string Shape::ToString() const {
  return fmt::format("[{}]", fmt::join(dims_.begin(), dims_.begin() + rank_, ","));
}

Tensor::Tensor(void* pointer, DType type, DeviceKind where, const Shape& dims)
    : data(pointer), dtype(type), device(where), shape(dims) {
  int64_t step = 1;
  for (int i = dims.rank() - 1; i >= 0; --i) {
    stride[i] = step;
    step *= dims[i];
  }
}

bool Tensor::contiguous() const {
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    if (shape[i] != 1 && stride[i] != step) return false;
    step *= shape[i];
  }
  return true;
}

Tensor Tensor::Rows(int64_t begin, int64_t count) const {
  LS_CHECK(shape.rank() > 0 && begin >= 0 && count >= 0 && begin + count <= shape[0], "rows [{}, {}+{}) of a tensor {}",
           begin, begin, count, shape.ToString());
  Tensor part = *this;
  part.shape[0] = count;
  part.data = static_cast<char*>(data) + begin * stride[0] * DTypeSize(dtype);
  return part;
}

Tensor Tensor::Reshape(const Shape& dims) const {
  LS_CHECK(contiguous() && dims.count() == size(), "cannot view {} as {}", shape.ToString(), dims.ToString());
  return Tensor(data, dtype, device, dims);
}

}  // namespace longspan
