// The GPU's kernels in a build without CUDA.
#include "kernels/ops.h"

namespace longspan {

Ops MakeGpuOps() { Fail(ExitCode::kConfig, "device gpu: this program was built without CUDA; use the cpu"); }

}  // namespace longspan
