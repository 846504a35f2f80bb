// The operations on rows on the CPU: sums in F32 or F64, casts among F32, F64 and BF16. A row index outside the tensor
// is an Error of the call. Files: index_cpu.cc, cast_cpu.cc.
#pragma once

#include "kernels/rows/ops.h"

namespace longspan {

class CpuRows final : public RowOps {
 public:
  void Gather(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) override;
  void Add(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) override;
  void Mark(Stream& stream, const Tensor& ids, const Tensor& place, const Tensor& marks) override;
  void Copy(Stream& stream, const Tensor& from, const Tensor& to) override;
  void Zero(Stream& stream, const Tensor& x) override;
};

}  // namespace longspan
