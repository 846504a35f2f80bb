// Threads for element-wise work and for sums, by cuts that the size alone decides: results do not depend on how many
// threads there are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/rounding.h"

namespace longspan {

constexpr int64_t kBlockElements = 8192;
constexpr int64_t kSumLanes = 16;

// body(begin, end) for [0, count) in blocks.
template <typename Body>
void ForBlocks(int64_t count, const Body& body) {
#pragma omp parallel for if (count > kBlockElements)
  for (int64_t begin = 0; begin < count; begin += kBlockElements) body(begin, std::min(count, begin + kBlockElements));
}

// The sum of term(0) .. term(count-1): term i goes to lane i % kSumLanes, the lanes are added pairwise.
template <typename T, typename Term>
T LaneSum(int64_t count, const Term& term) {
  T lane[kSumLanes] = {};
  const int64_t whole = count / kSumLanes * kSumLanes;
  for (int64_t i = 0; i < whole; i += kSumLanes) {
#pragma omp simd
    for (int64_t l = 0; l < kSumLanes; ++l) lane[l] += term(i + l);
  }
  for (int64_t i = whole; i < count; ++i) lane[i - whole] += term(i);
  for (int64_t width = kSumLanes / 2; width > 0; width /= 2) {
    for (int64_t l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  return lane[0];
}

// Rows in up to kRowParts parts of neighbours: add_row(row, sums) adds row's contribution to sums[width], the sums of
// its part, which are then added to `total` in the order of the parts. With total null only add_row's other effects
// count.
constexpr int64_t kRowParts = 64;
template <typename T, typename AddRow>
void AddOverRows(int64_t rows, int64_t width, T* total, const AddRow& add_row) {
  const int64_t part_rows = std::max<int64_t>(1, CeilDiv(rows, kRowParts));
  const int64_t parts = CeilDiv(rows, part_rows);
  static thread_local std::vector<T> scratch;
  scratch.assign(parts * width, T(0));
  T* const sums = scratch.data();
#pragma omp parallel for schedule(dynamic) if (rows * width > kBlockElements)
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t end = std::min(rows, (part + 1) * part_rows);
    for (int64_t row = part * part_rows; row < end; ++row) add_row(row, sums + part * width);
  }
  if (total == nullptr) return;
  for (int64_t part = 0; part < parts; ++part) {
    for (int64_t c = 0; c < width; ++c) total[c] += sums[part * width + c];
  }
}

}  // namespace longspan
