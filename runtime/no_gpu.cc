// The GPU device of a build without CUDA.
#include "runtime/device.h"
#include "runtime/foreign_stream.h"

namespace longspan {

std::unique_ptr<Device> MakeGpuDevice(int) {
  Fail(ExitCode::kConfig, "device gpu: this program was built without CUDA; use device cpu, or build with CUDA");
}

int GpuCount() { return 0; }

std::string GpuAddress(int) { return ""; }

void RecordForeign(CUstream_st*, Event&) { LS_CHECK(false, "a stream of a GPU in a program built without CUDA"); }

void WaitForeign(CUstream_st*, const Event&) { LS_CHECK(false, "a stream of a GPU in a program built without CUDA"); }

}  // namespace longspan
