#include "kernels/attention_gpu.h"
#include "kernels/gpu_common.cuh"

namespace longspan {

void GpuAttention::CompressedBackward(Stream&, const CompressedArgs&, const BranchGradient&) {
  Fail(ExitCode::kConfig, "not built");
}
void GpuAttention::SelectedBackward(Stream&, const SelectedArgs&, const BranchGradient&) {
  Fail(ExitCode::kConfig, "not built");
}
void GpuAttention::WindowBackward(Stream&, const WindowArgs&, const BranchGradient&) {
  Fail(ExitCode::kConfig, "not built");
}

}  // namespace longspan
