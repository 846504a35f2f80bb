// Between the host and a device: what a command loads, and what it looks at.
#pragma once

#include <vector>

#include "runtime/device.h"

namespace longspan {

// Copies host to device, device to host or within the host; casts, on the host, when the floating types differ. Comes
// after the stream's work so far; done when it returns.
void HostCopy(Device& device, Stream& stream, const Tensor& from, const Tensor& to);

// The elements of a tensor, cast when T is another floating type.
template <typename T>
std::vector<T> HostValues(Device& device, Stream& stream, const Tensor& x) {
  std::vector<T> values(x.size());
  HostCopy(device, stream, x, HostView(values.data(), x.shape));
  return values;
}

}  // namespace longspan
