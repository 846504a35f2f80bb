// Rows by index: gathered and scattered as bytes whatever their type, added as F32 or F64.
#include <cstring>

#include "kernels/base/arguments.h"
#include "kernels/base/blocks_cpu.h"
#include "kernels/rows/add_in_order_cpu.h"
#include "kernels/train/cpu.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

Shape WithRows(Shape shape, int64_t rows) {
  shape[0] = rows;
  return shape;
}

// `indexed` has the rows that the index names, `listed` one row for each entry of it.
void CheckRows(const char* name, const Tensor& indexed, const Tensor& index, const Tensor& listed,
               const char* indexed_name, const char* listed_name) {
  RequireContiguous(name, indexed_name, indexed);
  LS_CHECK(indexed.shape.rank() >= 1, "{}: {}: expected rows, found a scalar", name, indexed_name);
  RequireTensor(name, "index", index, DType::kI32, {index.size()});
  RequireTensor(name, listed_name, listed, indexed.dtype, WithRows(indexed.shape, index.size()));
}

int64_t RowSize(const Tensor& tensor) {
  int64_t size = 1;
  for (int i = 1; i < tensor.shape.rank(); ++i) size *= tensor.dim(i);
  return size;
}

// The index's values, once they are known to be rows.
const int32_t* Checked(const char* name, const Tensor& index, int64_t rows) {
  const int32_t* const values = index.As<int32_t>();
  for (int64_t i = 0; i < index.size(); ++i) {
    LS_CHECK(values[i] >= 0 && values[i] < rows, "{}: index[{}]: expected a row in [0,{}), found {}", name, i, rows,
             values[i]);
  }
  return values;
}

}  // namespace

void CpuTrain::GatherRows(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) {
  constexpr const char* kName = "train.gather_rows";
  CheckRows(kName, from, index, to, "from", "to");
  Launch(stream, kName, Cost{0, 2.0 * to.bytes()}, [from, index, to] {
    const int32_t* const rows = Checked(kName, index, from.dim(0));
    const int64_t bytes = RowSize(from) * DTypeSize(from.dtype);
    const auto* const source = static_cast<const char*>(from.data);
    auto* const target = static_cast<char*>(to.data);
#pragma omp parallel for if (to.size() > kBlockElements)
    for (int64_t i = 0; i < index.size(); ++i) std::memcpy(target + i * bytes, source + rows[i] * bytes, bytes);
  });
}

void CpuTrain::ScatterRows(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) {
  constexpr const char* kName = "train.scatter_rows";
  CheckRows(kName, to, index, from, "to", "from");
  Launch(stream, kName, Cost{0, 2.0 * from.bytes()}, [from, index, to] {
    const int32_t* const rows = Checked(kName, index, to.dim(0));
    const int64_t bytes = RowSize(to) * DTypeSize(to.dtype);
    const auto* const source = static_cast<const char*>(from.data);
    auto* const target = static_cast<char*>(to.data);
    // One thread: of a row named twice the last must stay.
    for (int64_t i = 0; i < index.size(); ++i) std::memcpy(target + rows[i] * bytes, source + i * bytes, bytes);
  });
}

void CpuTrain::AddRows(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) {
  constexpr const char* kName = "train.add_rows";
  const DType dtype = RequireFloat(kName, "to", to);
  CheckRows(kName, to, index, from, "to", "from");
  Launch(stream, kName, Cost{1.0 * from.size(), 3.0 * from.bytes()}, [from, index, to, dtype] {
    const int32_t* const rows = Checked(kName, index, to.dim(0));
    DispatchFloat(dtype,
                  [&]<typename T>() { AddRowsByIndex(from.As<T>(), rows, to.As<T>(), index.size(), RowSize(to)); });
  });
}

}  // namespace longspan
