#include "kernels/attention_gpu.h"
#include "kernels/gpu_common.cuh"

namespace longspan {

void GpuAttention::CompressBackward(Stream&, const CompressArgs&, const CompressGradient&) {
  Fail(ExitCode::kConfig, "not built");
}

}  // namespace longspan
