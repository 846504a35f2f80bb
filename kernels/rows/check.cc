#include "kernels/rows/check.h"

namespace longspan {

void CheckRows(const Operation& operation, const Tensor& indexed, const Tensor& index, const Tensor& listed,
               const char* indexed_name, const char* listed_name) {
  RequireContiguous(operation, indexed_name, indexed);
  LS_CHECK(indexed.shape.rank() >= 1, "{}: {}: expected rows, found a scalar", operation.name, indexed_name);
  RequireTensor(operation, "index", index, DType::kI32, {index.size()});
  Shape rows = indexed.shape;
  rows[0] = index.size();
  RequireTensor(operation, listed_name, listed, indexed.dtype, rows);
}

void CheckMark(const Operation& operation, const Tensor& ids, const Tensor& place, const Tensor& marks) {
  RequireTensor(operation, "ids", ids, DType::kI32, ids.shape);
  RequireTensor(operation, "place", place, DType::kI32, {place.size()});
  RequireTensor(operation, "marks", marks, DType::kU8, {marks.size()});
}

int64_t RowSize(const Tensor& tensor) {
  int64_t size = 1;
  for (int i = 1; i < tensor.shape.rank(); ++i) size *= tensor.dim(i);
  return size;
}

}  // namespace longspan
