#include "kernels/attention_gpu.h"
#include "kernels/gpu_common.cuh"

namespace longspan {

void GpuAttention::Compress(Stream&, const CompressArgs&) { Fail(ExitCode::kConfig, "not built"); }

}  // namespace longspan
