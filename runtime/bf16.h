// BF16 on the host: the upper half of an F32. (A GPU has its own type.)
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace longspan {

// Made from floats to the nearest, ties to even; NaNs stay quiet NaNs.
struct HostBf16 {
  HostBf16() = default;
  HostBf16(float x) {
    const auto wide = std::bit_cast<uint32_t>(x);
    bits = static_cast<uint16_t>(x != x ? wide >> 16 | 0x40 : (wide + 0x7FFF + (wide >> 16 & 1)) >> 16);
  }
  // Rounding twice could go wrong at a tie, so the first rounding keeps a trace of what it dropped: toward zero, last
  // bit set ("round to odd").
  HostBf16(double x) : HostBf16(OddF32(x)) {}
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

  uint16_t bits;

 private:
  static float OddF32(double x) {
    const auto near = static_cast<float>(x);
    if (x != x || static_cast<double>(near) == x) return near;
    uint32_t odd = std::bit_cast<uint32_t>(near);
    if (std::abs(static_cast<double>(near)) > std::abs(x)) --odd;
    return std::bit_cast<float>(odd | 1);
  }
};

}  // namespace longspan
