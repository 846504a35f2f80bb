// Expectations on whole results of the NSA operator (tests/support/compare.h has the rules).
#pragma once

#include "tests/support/nsa_case.h"

namespace longspan::test {

// out, o, lse, selected and scores, to the bit.
void ExpectSameBits(const NsaOutputs& found, const NsaOutputs& expected);
// Every gradient, to the bit.
void ExpectSameBits(NsaArrays found, NsaArrays expected);

// out, o, lse and the compressed keys and values.
void ExpectOutputsClose(const NsaOutputs& found, const NsaOutputs& expected, double tolerance);
// Every gradient, with the floor for those that are zero in exact arithmetic.
void ExpectGradientsClose(NsaArrays found, NsaArrays expected, double tolerance);

}  // namespace longspan::test
