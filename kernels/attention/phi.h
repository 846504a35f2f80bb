// The weights of phi, which makes one row of a block of rows (DESIGN.md section 2), listed once: their names, which are
// those of parameters and of an attention case, their members and their shapes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/attention/nsa_config.h"
#include "runtime/tensor.h"

namespace longspan {

// One T for each weight of one tensor (K or V) of width W; what a phi does not use stays empty.
template <typename T>
struct PhiSet {
  T position{};  // MLP [l,W], LINEAR [G,l,W]
  T weight1{};   // MLP [l*W,M]; row i*W+c meets channel c of block row i
  T bias1{};     // MLP [M]
  T weight2{};   // MLP [M,W]
  T bias2{};     // MLP [W]
  T weight{};    // LINEAR [G,l*W,W]

  static constexpr size_t kSize = 6;
  T& operator[](size_t i) { return this->*kMembers[i]; }
  const T& operator[](size_t i) const { return this->*kMembers[i]; }

 private:
  static constexpr std::array<T PhiSet::*, kSize> kMembers = {&PhiSet::position, &PhiSet::weight1, &PhiSet::bias1,
                                                              &PhiSet::weight2,  &PhiSet::bias2,   &PhiSet::weight};
};
using PhiWeights = PhiSet<Tensor>;

inline constexpr PhiSet<const char*> kPhiNames = {"position", "weight1", "bias1", "weight2", "bias2", "weight"};

struct PhiSizes {
  Phi phi = Phi::kMlp;
  int64_t groups = 0;  // G
  int64_t block = 0;   // l
  int64_t width = 0;   // W
  int64_t hidden = 0;  // M, of the MLP
};

// Rank 0 for weights that this phi does not have.
PhiSet<Shape> PhiShapes(const PhiSizes& sizes);

// Calls f(i, shape) for each weight that this phi has, set[i] of a PhiSet, in its order.
template <typename F>
void ForPhi(const PhiSizes& sizes, const F& f) {
  const PhiSet<Shape> shapes = PhiShapes(sizes);
  for (size_t i = 0; i < shapes.kSize; ++i) {
    if (shapes[i].rank() > 0) f(i, shapes[i]);
  }
}

}  // namespace longspan
