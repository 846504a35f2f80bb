#include "kernels/attention/gpu/attention.h"
#include "kernels/dense/gpu.h"
#include "kernels/ops.h"
#include "kernels/rows/gpu.h"
#include "kernels/train/gpu.h"

namespace longspan {

std::unique_ptr<AttentionOps> MakeGpuAttention() { return std::make_unique<GpuAttention>(); }

std::unique_ptr<DenseOps> MakeGpuDense() { return std::make_unique<GpuDense>(); }

std::unique_ptr<RowOps> MakeGpuRows() { return std::make_unique<GpuRows>(); }

std::unique_ptr<TrainOps> MakeGpuTrain() { return std::make_unique<GpuTrain>(); }

Ops MakeGpuOps() { return {MakeGpuAttention(), MakeGpuDense(), MakeGpuRows(), MakeGpuTrain(), MakeGpuDecode()}; }

}  // namespace longspan
