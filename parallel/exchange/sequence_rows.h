// Moves rows between tensors of a whole sequence on the host, [S,...], and the ranks' parts of it, [T,...] on their
// devices. The layout's sequence may be longer than S: the rows after the end are padding.
#pragma once

#include <cstdint>

#include "parallel/comm/comm.h"
#include "parallel/layout.h"
#include "runtime/device.h"

namespace longspan {

// What it refers to outlives it.
struct SequenceRows {
  Device& device;
  Stream& compute;   // copies
  Stream& comm;      // transfers
  Communicator& cp;  // over the device's memory
  const Layout& layout;
  const int64_t length;  // S

  // This rank's rows of `whole`; every byte of its padding becomes `padding`. Casts when the floating types differ.
  // Done when it returns.
  void Scatter(const Tensor& whole, const Tensor& part, uint8_t padding = 0) const;

  // Collective: on rank 0 `whole` gets the rows of all ranks' parts, cast when its floating type is another; ignored on
  // the others. `part` must be complete. Done when it returns.
  void Gather(const Tensor& part, const Tensor& whole) const;
};

}  // namespace longspan
