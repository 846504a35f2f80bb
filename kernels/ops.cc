#include "kernels/ops.h"

namespace longspan {

Ops MakeCpuOps() { return {MakeCpuAttention(), MakeCpuDense(), MakeCpuRows(), MakeCpuTrain()}; }

Ops MakePlannedOps(DeviceKind kind) {
  return {MakePlannedAttention(kind), MakePlannedDense(kind), MakePlannedRows(kind), MakePlannedTrain(kind)};
}

Ops MakeOps(DeviceKind kind) { return kind == DeviceKind::kCpu ? MakeCpuOps() : MakeGpuOps(); }

}  // namespace longspan
