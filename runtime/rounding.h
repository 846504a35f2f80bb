// Whole units: how many cover a length, and the length that they make. x >= 0, unit > 0.
#pragma once

#include <cstdint>

namespace longspan {

constexpr int64_t CeilDiv(int64_t x, int64_t unit) { return (x + unit - 1) / unit; }
constexpr int64_t RoundUp(int64_t x, int64_t unit) { return CeilDiv(x, unit) * unit; }

}  // namespace longspan
