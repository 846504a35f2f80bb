// Rows by index: gathered as bytes whatever their type, added as F32 or BF16; marks.
#include "kernels/base/gpu_common.cuh"
#include "kernels/rows/add_in_order_gpu.h"
#include "kernels/rows/check.h"
#include "kernels/rows/gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 256;

// Calls f.operator()<unit>() with the widest unit that rows and addresses are multiples of.
template <typename F>
void DispatchUnit(int64_t row_bytes, const Tensor& a, const Tensor& b, const F& f) {
  const uint64_t all =
      static_cast<uint64_t>(row_bytes) | reinterpret_cast<uintptr_t>(a.data) | reinterpret_cast<uintptr_t>(b.data);
  if (all % sizeof(uint4) == 0) {
    f.template operator()<uint4>();
  } else if (all % sizeof(uint32_t) == 0) {
    f.template operator()<uint32_t>();
  } else {
    f.template operator()<uint8_t>();
  }
}

// Block (i, y) copies part y of row i, `units` long.
template <typename Unit>
__global__ void GatherKernel(const Unit* from, const int32_t* index, Unit* to, int64_t rows, int64_t units,
                             GpuFaults* faults) {
  const int64_t i = blockIdx.x;
  const int32_t row = index[i];
  if (row < 0 || row >= rows) {
    if (threadIdx.x == 0 && blockIdx.y == 0) ReportFault(faults, GpuFault::kIndex, i, row, rows);
    return;
  }
  for (int64_t c = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x; c < units; c += gridDim.y * kThreads) {
    to[i * units + c] = from[row * units + c];
  }
}

// One thread an id. Many ids share a mark: it is written by those that find it unset.
__global__ void MarkKernel(const int32_t* ids, int64_t count, const int32_t* place, int64_t places, uint8_t* marks,
                           int64_t size, GpuFaults* faults) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int32_t id = ids[i];
    if (id == -1) continue;
    if (id < 0 || id >= places) {
      ReportFault(faults, GpuFault::kIndex, i, id, places);
    } else if (const int32_t at = place[id]; at < 0 || at >= size) {
      ReportFault(faults, GpuFault::kIndex, i, at, size);
    } else if (marks[at] == 0) {
      marks[at] = 1;
    }
  }
}

dim3 RowsGrid(int64_t count, int64_t units) {
  return dim3(GridFor(count, 1), static_cast<unsigned>(std::min<int64_t>(CeilDiv(units, 4 * kThreads), 64)));
}

}  // namespace

void GpuRows::Gather(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) {
  const Operation operation = OnGpu("rows.gather");
  CheckRows(operation, from, index, to, "from", "to");
  LaunchGpu(stream, operation.name, Cost{0, 2.0 * to.bytes()}, [&](cudaStream_t cuda) {
    if (to.size() == 0) return;
    const int64_t row_bytes = RowSize(from) * DTypeSize(from.dtype);
    DispatchUnit(row_bytes, from, to, [&]<typename Unit>() {
      const int64_t units = row_bytes / static_cast<int64_t>(sizeof(Unit));
      GatherKernel<<<RowsGrid(index.size(), units), kThreads, 0, cuda>>>(
          GpuData<const Unit>(from), GpuData<const int32_t>(index), GpuData<Unit>(to), from.dim(0), units,
          StreamFaults(stream));
    });
  });
}

void GpuRows::Add(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) {
  const Operation operation = OnGpu("rows.add");
  RequireFloat(operation, "to", to);
  CheckRows(operation, to, index, from, "to", "from");
  LaunchGpu(stream, operation.name, Cost{1.0 * from.size(), 3.0 * from.bytes()}, [&](cudaStream_t) {
    AddRowsInOrder(stream, add_scratch_, from, index, to, to.dim(0), RowSize(to), GpuFault::kIndex);
  });
}

void GpuRows::Mark(Stream& stream, const Tensor& ids, const Tensor& place, const Tensor& marks) {
  const Operation operation = OnGpu("rows.mark");
  CheckMark(operation, ids, place, marks);
  LaunchGpu(stream, operation.name, Cost{0, 1.0 * ids.bytes()}, [&](cudaStream_t cuda) {
    if (ids.size() == 0) return;
    MarkKernel<<<GridFor(ids.size(), 4 * kThreads), kThreads, 0, cuda>>>(
        GpuData<const int32_t>(ids), ids.size(), GpuData<const int32_t>(place), place.size(), GpuData<uint8_t>(marks),
        marks.size(), StreamFaults(stream));
  });
}

}  // namespace longspan
