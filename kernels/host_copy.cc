#include "kernels/host_copy.h"

#include "kernels/rows/ops.h"
#include "runtime/memory.h"

namespace longspan {

void HostCopy(Device& device, Stream& stream, const Tensor& from, const Tensor& to) {
  if (from.dtype == to.dtype) {
    device.Copy(stream, to, from);
    stream.Synchronize();
    return;
  }
  const auto host = MakeCpuDevice();
  const auto host_stream = host->MakeStream("cast");
  const bool down = to.device == DeviceKind::kCpu;
  // The device's side of the cast, as host memory.
  const Tensor& there = down ? from : to;
  const Buffer memory(*host, there.bytes(), "a tensor to be cast");
  const Tensor staged(memory.data(), there.dtype, DeviceKind::kCpu, there.shape);
  const auto copy = [&](const Tensor& source, const Tensor& target) {
    device.Copy(stream, target, source);
    stream.Synchronize();
  };
  if (down) copy(from, staged);
  MakeCpuRows()->Copy(*host_stream, down ? staged : from, down ? to : staged);
  host_stream->Synchronize();
  if (!down) copy(staged, to);
}

}  // namespace longspan
