// Operations on rows and on whole tensors: by index, casts, zeros. Tensors are contiguous.
#pragma once

#include <memory>

#include "runtime/device.h"
#include "runtime/tensor.h"

namespace longspan {

class RowOps {
 public:
  virtual ~RowOps() = default;
  // to[i] = from[index[i]], index [n] I32 on the device; to [n,...] has from's type and row.
  virtual void Gather(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) = 0;
  // to[index[i]] += from[i], one after another in ascending i (indices may repeat).
  virtual void Add(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) = 0;
  // marks[place[i]] = 1 for each i of `ids` [..] I32 but -1; place [n] I32, marks [m] U8. The others stay as they are.
  virtual void Mark(Stream& stream, const Tensor& ids, const Tensor& place, const Tensor& marks) = 0;
  virtual void Copy(Stream& stream, const Tensor& from, const Tensor& to) = 0;  // casts when dtypes differ
  virtual void Zero(Stream& stream, const Tensor& x) = 0;
};

std::unique_ptr<RowOps> MakeCpuRows();
std::unique_ptr<RowOps> MakePlannedRows(DeviceKind kind);

}  // namespace longspan
