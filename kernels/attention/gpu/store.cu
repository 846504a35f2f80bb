// Rows into pages: overwrites those rows of y. A block takes a row; bound by memory.
#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/attention.h"
#include "kernels/attention/gpu/pages.cuh"
#include "kernels/base/gpu_common.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 128;

// Rows of `units` units. Row blockIdx.x of x, whose first row is that of position `begin`; what the table or the buffer
// does not have is passed over.
template <typename Unit>
__global__ void StoreKernel(const Unit* x, Unit* y, int64_t units, int64_t begin, const int32_t* table,
                            int64_t page_rows, int64_t buffer_rows) {
  const int64_t i = blockIdx.x;
  const int64_t place = PageRow(table, page_rows, begin + i);
  if (place < 0 || place >= buffer_rows) return;
  for (int64_t c = threadIdx.x; c < units; c += kThreads) y[place * units + c] = x[i * units + c];
}

}  // namespace

void GpuAttention::Store(Stream& stream, const StoreArgs& args) {
  const char* const name = "attention.store";
  CheckStore(OnGpu(name), args);
  const int64_t row_bytes = args.x.dim(1) * args.x.dim(2) * DTypeSize(args.x.dtype);
  const auto store = [&]<typename Unit>(cudaStream_t cuda) {
    const int64_t units = row_bytes / static_cast<int64_t>(sizeof(Unit));
    for (const Segment& segment : args.segments) {
      if (segment.length == 0) continue;
      StoreKernel<Unit><<<GridFor(segment.length, 1), kThreads, 0, cuda>>>(
          GpuData<const Unit>(args.x) + segment.row * units, GpuData<Unit>(args.y), units, segment.begin,
          GpuData<const int32_t>(args.pages.table), args.pages.page_rows, args.y.dim(0));
    }
  };
  LaunchGpu(stream, name, StoreCost(args), [&](cudaStream_t cuda) {
    const uint64_t all = static_cast<uint64_t>(row_bytes) | reinterpret_cast<uintptr_t>(args.x.data) |
                         reinterpret_cast<uintptr_t>(args.y.data);
    if (all % sizeof(uint4) == 0) {
      store.template operator()<uint4>(cuda);
    } else {
      store.template operator()<uint16_t>(cuda);
    }
  });
}

}  // namespace longspan
