// Random values that follow from a seed and a place alone: a huge tensor on a GPU and a few rows of it on the CPU hold
// the same without a copy.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/attention/ops.h"
#include "tests/support/gpu_values.h"

namespace longspan::test {

// splitmix64 (Steele, Lea, Flood 2014).
inline uint64_t RandomBits(uint64_t seed, int64_t place) {
  uint64_t x = seed * 0xD1B54A32D192ED03u + static_cast<uint64_t>(place) * 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

// Mean 0, variance 1, about normal: the sum of four uniform numbers of 16 bits.
inline double RandomNormal(uint64_t seed, int64_t place) {
  const uint64_t x = RandomBits(seed, place);
  const uint64_t sum = (x & 0xFFFF) + (x >> 16 & 0xFFFF) + (x >> 32 & 0xFFFF) + (x >> 48);
  return (static_cast<double>(sum) - 131070) / 37837.2;
}

// A tensor of the machine's type, F32 or BF16, filled piece by piece.
inline OwnedTensor RandomOnGpu(const Machine& machine, const std::string& name, uint64_t seed, const Shape& shape,
                               double scale = 1) {
  OwnedTensor tensor(machine, name, machine.dtype, shape);
  const Tensor all = tensor.view().Reshape({shape.count()});
  const auto fill = [&]<typename T>(T (*convert)(double)) {
    std::vector<T> piece(std::min<int64_t>(shape.count(), int64_t{1} << 26));
    for (int64_t begin = 0; begin < shape.count(); begin += std::ssize(piece)) {
      const int64_t size = std::min(std::ssize(piece), shape.count() - begin);
#pragma omp parallel for
      for (int64_t i = 0; i < size; ++i) piece[i] = convert(scale * RandomNormal(seed, begin + i));
      machine.device->Copy(*machine.stream, all.Rows(begin, size),
                           Tensor(piece.data(), machine.dtype, DeviceKind::kCpu, {size}));
      machine.stream->Synchronize();
    }
  };
  if (machine.dtype == DType::kBf16) {
    fill.operator()<uint16_t>(Bf16Bits);
  } else {
    fill.operator()<float>([](double x) { return static_cast<float>(x); });
  }
  return tensor;
}

// The values that the tensor of RandomOnGpu has in the rows of these segments, one segment after another.
inline std::vector<double> RandomRows(DType dtype, uint64_t seed, const std::vector<Segment>& segments,
                                      int64_t row_size, double scale = 1) {
  int64_t count = 0;
  for (const Segment& segment : segments) count += segment.length * row_size;
  std::vector<double> values(count);
  double* to = values.data();
  for (const Segment& segment : segments) {
    const int64_t size = segment.length * row_size, first = segment.begin * row_size;
#pragma omp parallel for
    for (int64_t i = 0; i < size; ++i) {
      const double x = scale * RandomNormal(seed, first + i);
      to[i] = dtype == DType::kBf16 ? Bf16Value(Bf16Bits(x)) : static_cast<float>(x);
    }
    to += size;
  }
  return values;
}

}  // namespace longspan::test
