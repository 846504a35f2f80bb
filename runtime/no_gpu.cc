// The GPU device of a build without CUDA.
#include "runtime/device.h"

namespace longspan {

std::unique_ptr<Device> MakeGpuDevice(int) {
  Fail(ExitCode::kConfig, "device gpu: this program was built without CUDA; use device cpu, or build with CUDA");
}

int GpuCount() { return 0; }

std::string GpuAddress(int) { return ""; }

}  // namespace longspan
