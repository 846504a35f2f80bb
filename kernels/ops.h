// The menu of kernels: one implementation a device, the same Args for launcher, reference and test.
//
//   attention   kernels/attention/ops.h   the branches of NSA, compression, selection, combination
//   decode      kernels/attention/decode.h  the same for a few queries at the ends of many sequences
//   dense       kernels/dense/ops.h       matrix products, norms, RoPE, SwiGLU, embedding, gates
//   rows        kernels/rows/ops.h        rows by index, casts, zeros
//   train       kernels/train/ops.h       loss, optimizer, sums
//
// The CPU implementation is the reference for every other. Streams are explicit; a stream belongs to the ops' device.
#pragma once

#include <memory>

#include "kernels/attention/decode.h"
#include "kernels/attention/ops.h"
#include "kernels/dense/ops.h"
#include "kernels/rows/ops.h"
#include "kernels/train/ops.h"

namespace longspan {

struct Ops {
  std::unique_ptr<AttentionOps> attention;
  std::unique_ptr<DenseOps> dense;
  std::unique_ptr<RowOps> rows;
  std::unique_ptr<TrainOps> train;
  std::unique_ptr<DecodeOps> decode = nullptr;  // null: attention's operations serve decoding too
};

Ops MakeCpuOps();
// Throws Error (configuration) in a build without CUDA (kernels/no_gpu.cc).
Ops MakeGpuOps();
Ops MakeOps(DeviceKind kind);
// For streams of a planned device of this kind (runtime/planned_device.h): checks and counts, nothing more.
Ops MakePlannedOps(DeviceKind kind);

}  // namespace longspan
