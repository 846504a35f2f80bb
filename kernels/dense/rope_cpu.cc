// RoPE. Angles are F64: at position 10^6 an F32 angle would be off by 0.03 radians. One row's cosines and sines are
// computed once for all its heads.
#include <cmath>
#include <vector>

#include "kernels/base/blocks_cpu.h"
#include "kernels/dense/check.h"
#include "kernels/dense/cpu.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

template <typename T>
void Rotate(const RopeArgs& args) {
  const int64_t rows = args.x.dim(0), heads = args.x.dim(1), width = args.x.dim(2), half = width / 2;
  const int32_t* const positions = args.positions.As<int32_t>();
  const double* const frequency = args.frequency.As<double>();
#pragma omp parallel if (args.x.size() > kBlockElements)
  {
    std::vector<T> turn(width);
    T* const cosine = turn.data();
    T* const sine = cosine + half;
#pragma omp for
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t c = 0; c < half; ++c) {
        const double angle = positions[row] * frequency[c];
        cosine[c] = static_cast<T>(std::cos(angle) * args.factor);
        sine[c] = static_cast<T>(std::sin(angle) * (args.inverse ? -args.factor : args.factor));
      }
      for (int64_t head = row * heads; head < (row + 1) * heads; ++head) {
        const T* const x = args.x.As<T>() + head * width;
        T* const y = args.y.As<T>() + head * width;
#pragma omp simd
        for (int64_t c = 0; c < half; ++c) {
          const T first = x[c], second = x[c + half];
          y[c] = first * cosine[c] - second * sine[c];
          y[c + half] = second * cosine[c] + first * sine[c];
        }
      }
    }
  }
}

}  // namespace

void CpuDense::Rope(Stream& stream, const RopeArgs& args) {
  constexpr const char* kName = "dense.rope";
  const DType dtype = CheckRope(kName, args);
  Launch(stream, kName, RopeCost(args),
         [args, dtype] { DispatchFloat(dtype, [&]<typename T>() { Rotate<T>(args); }); });
}

}  // namespace longspan
