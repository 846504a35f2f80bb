// Selections for benchmarks: drawn, and how alike neighbours are in any.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention/nsa_config.h"
#include "runtime/tensor.h"

namespace longspan {

// [S,G,N] as the operator chooses, but the blocks that are not forced at random: of those of the query before, each
// stays with probability `keep`. One document. `shape` is [S,G,N], N = nsa.select.
std::vector<int32_t> DrawSelection(const Shape& shape, const NsaConfig& nsa, double keep);

// How many blocks are chosen by any of eight neighbouring queries of a group, the mean. selected [S,G,N].
double UnionOfEight(const std::vector<int32_t>& selected, const Shape& shape);

}  // namespace longspan
