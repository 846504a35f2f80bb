// What the GPU tests of compression share: a case, and the names and shapes of its inputs.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "kernels/attention/ops.h"
#include "tests/support/machine.h"

namespace longspan::test {

struct CompressCase {
  DType dtype = DType::kBf16;
  Phi phi = Phi::kMlp;
  int64_t tokens = 512;
  int64_t groups = 2, width = 64, hidden = 128;
  int64_t block = 32, stride = 16;
  std::vector<Segment> segments = {};  // empty = the whole sequence; multiples of the stride
  int64_t page_rows = 0;               // 0 = one page
  bool d_x = true;
  uint64_t seed = 1;
};

// Names and shapes of the inputs: x in the order of the sequence, then the weights in PhiWeights' order.
struct CompressInput {
  std::string name;
  Shape shape;
  double scale;
};
inline std::vector<CompressInput> InputsOf(const CompressCase& c) {
  const int64_t n = c.block * c.width;
  std::vector<CompressInput> inputs = {{"x", {c.tokens, c.groups, c.width}, 1}};
  const double fan = 1 / std::sqrt(static_cast<double>(n)), out = 1 / std::sqrt(static_cast<double>(c.hidden));
  if (c.phi == Phi::kMlp) {
    inputs.insert(inputs.end(), {{"position", {c.block, c.width}, 1},
                                 {"weight1", {n, c.hidden}, fan},
                                 {"bias1", {c.hidden}, 1},
                                 {"weight2", {c.hidden, c.width}, out},
                                 {"bias2", {c.width}, 1}});
  }
  if (c.phi == Phi::kLinear) {
    inputs.insert(inputs.end(),
                  {{"position", {c.groups, c.block, c.width}, 1}, {"weight", {c.groups, n, c.width}, fan}});
  }
  return inputs;
}

inline PhiWeights WeightsOf(Phi phi, const std::vector<OwnedTensor>& t) {
  PhiWeights weights;
  if (phi == Phi::kMlp) weights = {t[1].view(), t[2].view(), t[3].view(), t[4].view(), t[5].view(), {}};
  if (phi == Phi::kLinear) {
    weights.position = t[1].view();
    weights.weight = t[2].view();
  }
  return weights;
}

}  // namespace longspan::test
