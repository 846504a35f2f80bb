// The CPU reference of a model in BF16: the CPU's operations, after each of which everything that a GPU stores in BF16
// is rounded to it (to the nearest, ties to even), in place in F32. DESIGN.md section 5: the reference rounds stored
// intermediates as the kernels do.
//
//   rounded   activations, and gradients of activations in the model's dtype
//   kept      lse, losses, gradients of weights, and of q, k, v, gates and summaries (Context::gradient_dtype)
//
// A GPU's products and norms take BF16 alone, so AttentionLayer hands them narrow copies of the kept gradients; on a
// CPU it hands over the gradients themselves, and they are rounded as operands. What kernels round inside (the
// probabilities before they meet V, the hidden layer of a compression) is not rounded here. Weights are the caller's to
// round: RoundToBf16(compute, params.weights()) after Start.
#pragma once

#include "kernels/ops.h"

namespace longspan {

Ops MakeRoundingOps();  // F32 only

// Every element becomes the nearest BF16, in the order of the stream. x is F32, contiguous, in host memory, or null.
void RoundToBf16(Stream& stream, const Tensor& x);

}  // namespace longspan
