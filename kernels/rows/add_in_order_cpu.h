// Rows added by index, in order.
#pragma once

#include <algorithm>
#include <cstdint>

namespace longspan {

// to[index[i]] += from[i], rows of `width`, ascending i whatever the threads: each takes columns, all rows of them.
template <typename T>
void AddRowsByIndex(const T* from, const int32_t* index, T* to, int64_t rows, int64_t width) {
  constexpr int64_t kColumns = 64;
#pragma omp parallel for if (rows * width > (1 << 14))
  for (int64_t begin = 0; begin < width; begin += kColumns) {
    const int64_t end = std::min(width, begin + kColumns);
    for (int64_t i = 0; i < rows; ++i) {
      const T* source = from + i * width;
      T* target = to + index[i] * width;
#pragma omp simd
      for (int64_t c = begin; c < end; ++c) target[c] += source[c];
    }
  }
}

}  // namespace longspan
