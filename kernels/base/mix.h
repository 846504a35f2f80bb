// Mix: 64 bits stirred so that each depends on all, for sums that are hashes; device code calls it as well.
#pragma once

#include <cstdint>

namespace longspan {

// The finaliser of splitmix64.
constexpr uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace longspan
