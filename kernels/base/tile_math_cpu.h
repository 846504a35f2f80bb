// The inner loops of the CPU's matrix products and attention, over rows that are padded to 64 bytes.
//
// tile_math_cpu.cc is compiled for several widths of vectors, of which TileMathOf gives the widest that this processor
// has. All give the same bits: every element of a product adds its terms in the order of depth, each term by one fused
// multiply-add; every sum over a row goes by kRowLanes columns whatever the width; nothing else is fused. So a result
// depends neither on the processor nor on the compiler, alignment, or the rows that are computed with it.
#pragma once

#include <cstdint>
#include <vector>

namespace longspan {

// Elements in 64 bytes, the widest vector.
template <typename T>
constexpr int64_t kRowLanes = 64 / static_cast<int64_t>(sizeof(T));

template <typename T>
constexpr int64_t PadRow(int64_t width) {
  return (width + kRowLanes<T> - 1) / kRowLanes<T> * kRowLanes<T>;
}

// A matrix read one element at a time: element (i,j) is data[i*row + j*column].
template <typename T>
struct Strided {
  const T* data;
  int64_t row;
  int64_t column;
};

// c[rows,columns] = a[rows,depth] b[depth,columns], or c += with `accumulate`; rows of b and c are b_row and c_row
// apart. The sum over depth begins at zero and is then stored or added.
template <typename T>
struct TileProduct {
  Strided<T> a;
  const T* b;
  int64_t b_row;
  T* c;
  int64_t c_row;
  int64_t rows, columns, depth;
  bool accumulate = false;
};

// T is float or double. Every `width` and `columns` is a multiple of kRowLanes.
template <typename T>
struct TileMath {
  int64_t vector_bits;

  void (*product)(const TileProduct<T>& product);
  // The largest of x[0..width).
  T (*max)(const T* x, int64_t width);
  // Sum of a[i] b[i].
  T (*dot)(const T* a, const T* b, int64_t width);
  void (*scale)(T* x, int64_t width, T factor);
  // x[i] = e^(x[i]-shift); their sum. x[i]-shift <= 0, in float also somewhat above: 2 ulp in float, and there 0
  // below -87; 0 for -inf, NaN for NaN.
  T (*exp)(T* x, int64_t width, T shift);
  // sum[j] = the sum over rows i, in their order, of e^(x[i*width+j] - shift[i])
  void (*exp_columns)(const T* x, int64_t rows, int64_t width, const T* shift, T* sum);
  // p[i] = e^(p[i]-lse), d_s[i] = p[i] (d_s[i] - delta)
  void (*softmax_backward)(T* p, T* d_s, int64_t width, T lse, T delta);
};

// LONGSPAN_VECTOR_BITS=256 in the environment forgoes wider vectors.
template <typename T>
const TileMath<T>& TileMathOf();

// All that this processor can run, the widest last.
template <typename T>
std::vector<const TileMath<T>*> AllTileMath();

}  // namespace longspan
