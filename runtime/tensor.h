// Tensor: a non-owning typed view. Buffers and arenas (runtime/memory.h) own.
//
// The letters of dimensions, everywhere: S sequence, T this rank's tokens, H query heads, G key/value groups, K key
// width, V value width, C compressed tokens, N chosen blocks, D model width, F feed-forward width, X vocabulary, R rows
// of a buffer read through a page table. Every declaration states its shape: `Tensor q;  // [T,H,K]`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>

#include "runtime/error.h"

namespace longspan {

enum class DType : uint8_t { kF32, kF64, kBf16, kI32, kI64, kU8, kU16 };
enum class DeviceKind : uint8_t { kCpu, kGpu };

int64_t DTypeSize(DType dtype);           // bytes of one element
const char* DTypeName(DType dtype);       // "F32", ... (the names of safetensors)
const char* DeviceName(DeviceKind kind);  // "cpu", "gpu"

template <typename T>
constexpr DType DTypeOf() {
  using U = std::remove_cv_t<T>;
  if constexpr (std::is_same_v<U, float>) return DType::kF32;
  if constexpr (std::is_same_v<U, double>) return DType::kF64;
  if constexpr (std::is_same_v<U, int32_t>) return DType::kI32;
  if constexpr (std::is_same_v<U, int64_t>) return DType::kI64;
  if constexpr (std::is_same_v<U, uint8_t>) return DType::kU8;
  if constexpr (std::is_same_v<U, uint16_t>) return DType::kU16;
}

// Up to four dimensions.
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims);
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t& operator[](int i) { return dims_[i]; }
  int64_t count() const;         // product of the dimensions; 1 for rank 0
  std::string ToString() const;  // "[2,3]"
  bool operator==(const Shape& other) const = default;

 private:
  int rank_ = 0;
  std::array<int64_t, kMaxRank> dims_{};  // dimensions past the rank stay 0
};

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  DeviceKind device = DeviceKind::kCpu;
  Shape shape;
  std::array<int64_t, Shape::kMaxRank> stride{};  // in elements

  Tensor() = default;
  // A contiguous view of `pointer`.
  Tensor(void* pointer, DType type, DeviceKind where, const Shape& dims);

  explicit operator bool() const { return data != nullptr; }
  int64_t dim(int i) const { return shape[i]; }
  int64_t size() const { return shape.count(); }
  int64_t bytes() const { return size() * DTypeSize(dtype); }
  bool contiguous() const;

  // The typed pointer; throws when the dtype is another.
  template <typename T>
  T* As() const {
    LS_CHECK(dtype == DTypeOf<T>(), "tensor holds {}, read as {}", DTypeName(dtype), DTypeName(DTypeOf<T>()));
    return static_cast<T*>(data);
  }
  Tensor Rows(int64_t begin, int64_t count) const;  // rows [begin, begin+count) of the first dimension
  Tensor Reshape(const Shape& dims) const;          // same elements; contiguous tensors only
};

// A contiguous CPU view of host memory.
template <typename T>
Tensor HostView(T* data, const Shape& shape) {
  return Tensor(const_cast<std::remove_cv_t<T>*>(data), DTypeOf<T>(), DeviceKind::kCpu, shape);
}

}  // namespace longspan
