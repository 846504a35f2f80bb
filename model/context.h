// What every part of the network on one rank shares. Owned by the caller (launch/ or a test), who outlives the model.
#pragma once

#include "kernels/ops.h"
#include "parallel/comm/comm.h"
#include "parallel/layout.h"
#include "runtime/device.h"

namespace longspan {

struct Context {
  Device& device;
  Ops& ops;
  Stream& compute;  // kernels
  Stream& comm;     // transfers; events order the two
  Communicator& cp;
  const Layout& layout;  // of the sequence over cp
  DType dtype;           // of weights, activations and the gradients of activations: BF16 (GPU), F32 or F64 (CPU)
  DType gradient_dtype;  // of the gradients of weights, q, k, v, gates and summaries; F32, or F64 when dtype is

  int64_t tokens() const { return layout.tokens(); }  // T
  const std::vector<Segment>& segments() const { return layout.segments(cp.rank()); }
};

}  // namespace longspan
