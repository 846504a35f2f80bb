#include "launch/job/machine.h"

#include "runtime/device.h"

namespace longspan {

Machine ChooseMachine(const RuntimeConfig& config) {
  const bool gpu = config.device == RuntimeDevice::kGpu || (config.device == RuntimeDevice::kAuto && GpuCount() > 0);
  if (!gpu && config.dtype == RuntimeType::kBf16) {
    Fail(ExitCode::kConfig,
         "runtime.dtype = BF16: needs a GPU, and this program finds none; set runtime.dtype to AUTO");
  }
  if (!gpu || config.dtype == RuntimeType::kF32) return {gpu ? DeviceKind::kGpu : DeviceKind::kCpu, DType::kF32};
  return {DeviceKind::kGpu, DType::kBf16};
}

}  // namespace longspan
