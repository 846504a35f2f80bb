// Compiled once for each width of vectors (CMakeLists.txt), so nothing here may leave the file but one table of
// functions: no inline function of the standard library, of which the linker might then take this file's copy for
// processors that lack its instructions.
//
// Bound by the multiply-adds: a block of rows x vectors of c stays in registers while depth goes by.
#include <math.h>
#include <string.h>

#include "kernels/base/tile_math_variants_cpu.h"

#if defined(__FMA__)
#include <immintrin.h>
#endif

namespace longspan {
namespace {

#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int64_t kVectorBytes = 32;
#else
constexpr int64_t kVectorBytes = 16;
#endif

template <typename T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vector = typename VectorOf<T>::Type;

template <typename T>
constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(T));

template <typename T>
inline Vector<T> Load(const T* from) {
  Vector<T> vector;
  memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <typename T>
inline void Store(T* to, const Vector<T>& vector) {
  memcpy(to, &vector, sizeof(vector));
}

// x in every lane: subtracting nothing keeps the sign of a zero, and costs nothing.
template <typename T>
inline Vector<T> Splat(T x) {
  return x - Vector<T>{};
}

// a b + c, rounded once.
inline Vector<float> MulAdd(const Vector<float>& a, const Vector<float>& b, const Vector<float>& c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  Vector<float> sum;
  for (int64_t lane = 0; lane < kLanes<float>; ++lane) sum[lane] = fmaf(a[lane], b[lane], c[lane]);
  return sum;
#endif
}

inline Vector<double> MulAdd(const Vector<double>& a, const Vector<double>& b, const Vector<double>& c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_pd(a, b, c);
#else
  Vector<double> sum;
  for (int64_t lane = 0; lane < kLanes<double>; ++lane) sum[lane] = fma(a[lane], b[lane], c[lane]);
  return sum;
#endif
}

inline Vector<float> Exp(const Vector<float>& x) {
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  // x = n ln2 + r: adding 1.5 * 2^23 rounds x/ln2 to the integer n and leaves n in the low bits.
  const Vector<float> round = Splat(12582912.0f);
  const Vector<float> shifted = MulAdd(x, Splat(1.44269504f), round);
  const Vector<float> n = shifted - round;
  const Vector<float> r = MulAdd(n, Splat(2.12194440e-4f), MulAdd(n, Splat(-0.693359375f), x));
  Vector<float> e = Splat(1.0f / 5040);
  constexpr float kCoefficients[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (const float coefficient : kCoefficients) {
    e = MulAdd(e, r, Splat(coefficient));
  }
  const Bits power = __builtin_bit_cast(Bits, shifted) << 23;
  const Vector<float> result = __builtin_bit_cast(Vector<float>, __builtin_bit_cast(Bits, e) + power);
  const Vector<float> finite = x < -87.0f ? Vector<float>{} : result;
  return x == x ? finite : x;  // adding to the exponent can turn a NaN's bits into a number
}

inline Vector<double> Exp(const Vector<double>& x) {
  Vector<double> e = {};
  for (int64_t lane = 0; lane < kLanes<double>; ++lane) e[lane] = exp(x[lane]);
  return e;
}

// The sum of term(i), the vectors that begin at column i: column c is added to lane c % kRowLanes, then the lanes in
// their order.
template <typename T, typename Term>
inline T SumRow(int64_t width, const Term& term) {
  constexpr int64_t kVectors = kRowLanes<T> / kLanes<T>;
  Vector<T> sum[kVectors] = {};
  for (int64_t i = 0; i < width; i += kRowLanes<T>) {
    for (int64_t j = 0; j < kVectors; ++j) sum[j] += term(i + j * kLanes<T>);
  }
  T total = sum[0][0];
  for (int64_t lane = 1; lane < kRowLanes<T>; ++lane) total += sum[lane / kLanes<T>][lane % kLanes<T>];
  return total;
}

// The sums of a block fill the registers that its operands leave: 12 of 16, or 24 of 32.
constexpr int64_t kBlockVectors = 2;
constexpr int64_t kBlockRows = kVectorBytes == 64 ? 12 : 6;

template <typename T, int64_t kRows, int64_t kVectors>
inline void ProductBlock(const Strided<T>& a, const T* b, int64_t b_row, T* c, int64_t c_row, int64_t depth,
                         bool accumulate) {
  Vector<T> sum[kRows][kVectors] = {};
  // A pointer serves three rows, by addresses of the form pointer + row * (0, 1 or 2).
  const T* a_rows[(kRows + 2) / 3];
  for (int64_t i = 0; i < kRows; i += 3) a_rows[i / 3] = a.data + i * a.row;
  for (int64_t p = 0; p < depth; ++p) {
    Vector<T> b_vector[kVectors];
    for (int64_t j = 0; j < kVectors; ++j) b_vector[j] = Load(b + j * kLanes<T>);
    for (int64_t i = 0; i < kRows; ++i) {
      const Vector<T> x = Splat(a_rows[i / 3][i % 3 * a.row]);
      for (int64_t j = 0; j < kVectors; ++j) sum[i][j] = MulAdd(x, b_vector[j], sum[i][j]);
    }
    for (int64_t i = 0; i < kRows; i += 3) a_rows[i / 3] += a.column;
    b += b_row;
  }
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kVectors; ++j) {
      T* const to = c + i * c_row + j * kLanes<T>;
      Store(to, accumulate ? Load(to) + sum[i][j] : sum[i][j]);
    }
  }
}

template <typename T, int64_t kVectors>
inline void ProductColumns(Strided<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, int64_t rows, int64_t depth,
                           bool accumulate) {
  const auto take = [&]<int64_t kTake>() {
    for (; rows >= kTake; rows -= kTake) {
      ProductBlock<T, kTake, kVectors>(a, b, b_row, c, c_row, depth, accumulate);
      a.data += kTake * a.row;
      c += kTake * c_row;
    }
  };
  if constexpr (kVectors <= kBlockVectors) {
    take.template operator()<kBlockRows>();
    take.template operator()<3>();
  }
  take.template operator()<1>();
}

template <typename T>
void Product(const TileProduct<T>& product) {
  const int64_t columns = product.columns;
  int64_t column = 0;
  const auto take = [&]<int64_t kTake>() {
    for (; columns - column >= kTake * kLanes<T>; column += kTake * kLanes<T>) {
      ProductColumns<T, kTake>(product.a, product.b + column, product.b_row, product.c + column, product.c_row,
                               product.rows, product.depth, product.accumulate);
    }
  };
  if (product.rows < 3) take.template operator()<8>();  // few rows: sums enough to hide the multiply-add's latency
  take.template operator()<kBlockVectors>();
  take.template operator()<1>();
}

template <typename T>
T Max(const T* x, int64_t width) {
  Vector<T> largest = Load(x);
  for (int64_t i = kLanes<T>; i < width; i += kLanes<T>) {
    const Vector<T> next = Load(x + i);
    largest = next > largest ? next : largest;
  }
  T max = largest[0];
  for (int64_t lane = 1; lane < kLanes<T>; ++lane) max = largest[lane] > max ? largest[lane] : max;
  return max;
}

template <typename T>
T Dot(const T* a, const T* b, int64_t width) {
  return SumRow<T>(width, [=](int64_t i) { return Load(a + i) * Load(b + i); });
}

template <typename T>
void Scale(T* x, int64_t width, T factor) {
  for (int64_t i = 0; i < width; i += kLanes<T>) Store(x + i, Load(x + i) * factor);
}

template <typename T>
T ExpRow(T* x, int64_t width, T shift) {
  return SumRow<T>(width, [=](int64_t i) {
    const Vector<T> e = Exp(Load(x + i) - shift);
    Store(x + i, e);
    return e;
  });
}

template <typename T>
void ExpColumns(const T* x, int64_t rows, int64_t width, const T* shift, T* sum) {
  for (int64_t j = 0; j < width; j += kLanes<T>) {
    Vector<T> total = {};
    for (int64_t i = 0; i < rows; ++i) total += Exp(Load(x + i * width + j) - shift[i]);
    Store(sum + j, total);
  }
}

template <typename T>
void SoftmaxBackward(T* p, T* d_s, int64_t width, T lse, T delta) {
  for (int64_t i = 0; i < width; i += kLanes<T>) {
    const Vector<T> probability = Exp(Load(p + i) - lse);
    Store(p + i, probability);
    Store(d_s + i, probability * (Load(d_s + i) - delta));
  }
}

template <typename T>
constexpr TileMath<T> kTable = {8 * kVectorBytes, Product<T>, Max<T>,        Dot<T>,
                                Scale<T>,         ExpRow<T>,  ExpColumns<T>, SoftmaxBackward<T>};

}  // namespace

const TileMathTables& LONGSPAN_TILE_MATH() {
  static constexpr TileMathTables kTables = {&kTable<float>, &kTable<double>};
  return kTables;
}

}  // namespace longspan
