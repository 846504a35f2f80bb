// The operations on rows on a GPU: sums in F32 or BF16, casts between the two. A row index outside the tensor is
// skipped, and Error (data) comes from the stream's Synchronize. Files: index_gpu.cu, cast_gpu.cu.
#pragma once

#include "kernels/rows/ops.h"
#include "runtime/gpu.h"

namespace longspan {

class GpuRows final : public RowOps {
 public:
  void Gather(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) override;
  void Add(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) override;
  void Mark(Stream& stream, const Tensor& ids, const Tensor& place, const Tensor& marks) override;
  void Copy(Stream& stream, const Tensor& from, const Tensor& to) override;
  void Zero(Stream& stream, const Tensor& x) override;

 private:
  GpuScratch add_scratch_{"rows added by index"};
};

std::unique_ptr<RowOps> MakeGpuRows();

}  // namespace longspan
