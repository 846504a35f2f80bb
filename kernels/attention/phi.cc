#include "kernels/attention/phi.h"

namespace longspan {

PhiSet<Shape> PhiShapes(const PhiSizes& sizes) {
  const auto& [phi, groups, block, width, hidden] = sizes;
  switch (phi) {
    case Phi::kMlp:
      return {.position = {block, width},
              .weight1 = {block * width, hidden},
              .bias1 = {hidden},
              .weight2 = {hidden, width},
              .bias2 = {width}};
    case Phi::kLinear:
      return {.position = {groups, block, width}, .weight = {groups, block * width, width}};
    case Phi::kMean:
      break;
  }
  return {};
}

}  // namespace longspan
