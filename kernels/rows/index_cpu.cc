// Rows by index: gathered as bytes whatever their type, added as F32 or F64; marks.
#include <cstring>

#include "kernels/base/arguments.h"
#include "kernels/base/blocks_cpu.h"
#include "kernels/rows/add_in_order_cpu.h"
#include "kernels/rows/check.h"
#include "kernels/rows/cpu.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

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

void CpuRows::Gather(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) {
  constexpr const char* kName = "rows.gather";
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

void CpuRows::Add(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) {
  constexpr const char* kName = "rows.add";
  const DType dtype = RequireFloat(kName, "to", to);
  CheckRows(kName, to, index, from, "to", "from");
  Launch(stream, kName, Cost{1.0 * from.size(), 3.0 * from.bytes()}, [from, index, to, dtype] {
    const int32_t* const rows = Checked(kName, index, to.dim(0));
    DispatchFloat(dtype,
                  [&]<typename T>() { AddRowsByIndex(from.As<T>(), rows, to.As<T>(), index.size(), RowSize(to)); });
  });
}

void CpuRows::Mark(Stream& stream, const Tensor& ids, const Tensor& place, const Tensor& marks) {
  static constexpr const char* kName = "rows.mark";
  CheckMark(kName, ids, place, marks);
  Launch(stream, kName, Cost{0, 1.0 * ids.bytes()}, [ids, place, marks] {
    const int32_t* const id = ids.As<int32_t>();
    const int32_t* const to = Checked(kName, place, marks.size());
    for (int64_t i = 0; i < ids.size(); ++i) {
      if (id[i] == -1) continue;
      LS_CHECK(id[i] >= 0 && id[i] < place.size(), "{}: ids[{}]: expected -1 or a row in [0,{}), found {}", kName, i,
               place.size(), id[i]);
      marks.As<uint8_t>()[to[id[i]]] = 1;
    }
  });
}

std::unique_ptr<RowOps> MakeCpuRows() { return std::make_unique<CpuRows>(); }

}  // namespace longspan
