#include "kernels/ops.h"

namespace longspan {

Ops MakeCpuOps() { return {MakeCpuAttention(), MakeCpuDense(), MakeCpuRows(), MakeCpuTrain()}; }

Ops MakeOps(DeviceKind kind) { return kind == DeviceKind::kCpu ? MakeCpuOps() : MakeGpuOps(); }

}  // namespace longspan
