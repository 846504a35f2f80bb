// What the attention kernels of the CPU reference are made of: vectors, a small matrix product, exp, scratch memory.
//
// All lanes of a vector are treated alike, and sums are added in an order that the operands' indices fix: a result
// depends neither on alignment nor on which other rows were computed with it. Widths are whole vectors (callers pad
// with PadToVector), so that there are no leftover loops with other roundings.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace longspan {

#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64;
constexpr int64_t kBlockRows = 4;  // rows x vectors of the product's register block; 32 registers
#elif defined(__AVX__)
constexpr int64_t kVectorBytes = 32;
constexpr int64_t kBlockRows = 2;
#else
constexpr int64_t kVectorBytes = 16;
constexpr int64_t kBlockRows = 2;
#endif
constexpr int64_t kBlockVectors = 4;

template <typename T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vector = typename VectorOf<T>::Type;

template <typename T>
constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(T));

template <typename T>
constexpr int64_t PadToVector(int64_t width) {
  return (width + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

template <typename T>
inline Vector<T> Load(const T* from) {
  Vector<T> vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <typename T>
inline void Store(T* to, const Vector<T>& vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

// The lanes' sum, in their order.
template <typename T>
inline T SumLanes(const Vector<T>& vector) {
  T sum = vector[0];
  for (int64_t lane = 1; lane < kLanes<T>; ++lane) sum += vector[lane];
  return sum;
}

// e^x for x <= 0 (in float also somewhat above): 2 ulp in float, exactly 0 for -inf and below the smallest normal
// number, NaN for NaN.
inline Vector<float> Exp(const Vector<float>& x) {
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  // x = n ln2 + r: adding 1.5 * 2^23 rounds x/ln2 to the integer n and leaves n in the low bits.
  const float round = 12582912.0f;
  const Vector<float> shifted = x * 1.44269504f + round;
  const Vector<float> n = shifted - round;
  const Vector<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector<float> e = r * (1.0f / 5040) + 1.0f / 720;
  e = e * r + 1.0f / 120;
  e = e * r + 1.0f / 24;
  e = e * r + 1.0f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  const Bits power = std::bit_cast<Bits>(shifted) << 23;
  const Vector<float> result = std::bit_cast<Vector<float>>(std::bit_cast<Bits>(e) + power);
  const Vector<float> finite = x < -87.0f ? Vector<float>{} : result;
  return x == x ? finite : x;  // adding to the exponent can turn a NaN's bits into a number
}

inline Vector<double> Exp(const Vector<double>& x) {
  Vector<double> e = {};
  for (int64_t lane = 0; lane < kLanes<double>; ++lane) e[lane] = std::exp(x[lane]);
  return e;
}

// A matrix read one element at a time: element (i,j) is data[i*row + j*column].
template <typename T>
struct Strided {
  const T* data;
  int64_t row;
  int64_t column;
};

template <typename T, int64_t kRows, int64_t kVectors>
void ProductBlock(const Strided<T>& a, const T* b, int64_t b_row, T* c, int64_t c_row, int64_t depth, bool accumulate) {
  Vector<T> sum[kRows][kVectors] = {};
  if (accumulate) {
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t j = 0; j < kVectors; ++j) sum[i][j] = Load(c + i * c_row + j * kLanes<T>);
    }
  }
  for (int64_t p = 0; p < depth; ++p) {
    Vector<T> b_vector[kVectors];
    for (int64_t j = 0; j < kVectors; ++j) b_vector[j] = Load(b + p * b_row + j * kLanes<T>);
    for (int64_t i = 0; i < kRows; ++i) {
      const T x = a.data[i * a.row + p * a.column];
      for (int64_t j = 0; j < kVectors; ++j) sum[i][j] += x * b_vector[j];
    }
  }
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kVectors; ++j) Store(c + i * c_row + j * kLanes<T>, sum[i][j]);
  }
}

template <typename T, int64_t kVectors>
void ProductColumns(Strided<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, int64_t rows, int64_t depth,
                    bool accumulate) {
  constexpr int64_t kRows = kBlockRows * (kVectors == kBlockVectors ? 1 : 2);
  const auto take = [&]<int64_t kTake>() {
    for (; rows >= kTake; rows -= kTake) {
      ProductBlock<T, kTake, kVectors>(a, b, b_row, c, c_row, depth, accumulate);
      a.data += kTake * a.row;
      c += kTake * c_row;
    }
  };
  take.template operator()<kRows>();
  if constexpr (kRows > 4) take.template operator()<4>();
  if constexpr (kRows > 2) take.template operator()<2>();
  take.template operator()<1>();
}

// c[rows,columns] = (or += with `accumulate`) a[rows,depth] b[depth,columns]; rows of b and c are b_row and c_row
// apart, columns are whole vectors. Every element adds its products one after another in the order of depth.
template <typename T>
void TileProduct(const Strided<T>& a, const T* b, int64_t b_row, T* c, int64_t c_row, int64_t rows, int64_t columns,
                 int64_t depth, bool accumulate) {
  int64_t column = 0;
  const auto take = [&]<int64_t kTake>() {
    for (; columns - column >= kTake * kLanes<T>; column += kTake * kLanes<T>) {
      ProductColumns<T, kTake>(a, b + column, b_row, c + column, c_row, rows, depth, accumulate);
    }
  };
  take.template operator()<kBlockVectors>();
  take.template operator()<2>();
  take.template operator()<1>();
}

// Aligned memory that only grows; its contents are undefined after Get.
template <typename T>
class Scratch {
 public:
  T* Get(int64_t count) {
    if (count > count_) {
      data_.reset();
      count_ = 0;
      data_.reset(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))));
      count_ = count;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t count_ = 0;
};

}  // namespace longspan
