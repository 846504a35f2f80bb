// NSA as the text says it (DESIGN.md section 2; arXiv 2502.11089, equations 7 to 12): dense, fp64, one query at a time,
// for tests. It shares no code with the kernels. Gradients are finite differences of it.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/support/nsa_case.h"

namespace longspan::test {

enum class Equation9 {
  kGeometric,  // weights are the overlap of compressed token and selection block, in cells of `stride` tokens
  kLiteral,    // the printed indices counted from 0, which mostly draw from the block before; only for contrast
};

// Block scores (equation 9) of one head's probabilities over the compressed tokens, for `blocks` selection blocks.
Array BlockScores(const Array& probability, const NsaConfig& nsa, int64_t blocks, Equation9 reading);

// The choice among the blocks of a document that begins at block `first`, by a query in block `own`; scores [own+1].
std::vector<int32_t> ChooseBlocks(const Array& scores, int64_t first, int64_t own, const NsaConfig& nsa);

// Everything, with the selection free or given ([S,G,n]).
NsaOutputs Oracle(const NsaCase& c, const std::vector<int32_t>* selected = nullptr);

}  // namespace longspan::test
