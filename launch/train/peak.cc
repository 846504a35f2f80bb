#include "launch/train/peak.h"

#include <algorithm>
#include <cmath>

#include "runtime/memory.h"
#include "runtime/trace.h"

namespace longspan {

double MeasurePeak(Device& device, Ops& ops, Stream& stream, DType dtype) {
  constexpr int kTries = 8;  // of which the first warms up, and others may wait for a busy machine
  const bool gpu = device.kind() == DeviceKind::kGpu;
  const int64_t n = gpu ? 4096 : 512;
  const int products = gpu ? 8 : 1;  // of a try, so that its launch and end are nothing beside it
  const Buffer memory(device, 3 * n * n * DTypeSize(dtype), "matrix products that measure the device");
  const Tensor all(memory.data(), dtype, device.kind(), {3 * n, n});
  device.FillBytes(stream, all, 0x3C);  // 0.0115 in BF16 and in F32
  double least = INFINITY;
  for (int i = 0; i < kTries; ++i) {
    stream.Synchronize();
    const double begin = WallSeconds();
    for (int product = 0; product < products; ++product) {
      ops.dense->MatMul(stream, {.a = all.Rows(0, n), .b = all.Rows(n, n), .c = all.Rows(2 * n, n)});
    }
    stream.Synchronize();
    least = std::min(least, WallSeconds() - begin);
  }
  const auto size = static_cast<double>(n);
  return products * 2 * size * size * size / least;
}

double TracedFlops() {
  double flops = 0;
  for (const auto& [name, total] : Trace::Get().totals()) flops += total.flops;
  return flops;
}

}  // namespace longspan
