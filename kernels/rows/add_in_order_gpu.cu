#include <algorithm>
#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "kernels/base/gpu_common.cuh"
#include "kernels/rows/add_in_order_gpu.h"

namespace longspan {
namespace {

constexpr int kThreads = 128;
constexpr int kAhead = 16;  // rows in flight
// Lists of blocks to be fetched are of another length in every step: up to this they do not make the scratch grow.
constexpr int64_t kLeastScratch = 1 << 20;

struct SortedRows {
  const int32_t* row;    // [count] ascending; entries out of range come last, as the number of rows
  const int32_t* entry;  // [count] which entry; ascending where rows are equal
};

__global__ void EntriesKernel(const int32_t* index, int32_t* row, int32_t* entry, int64_t count, int64_t rows,
                              GpuFaults* faults, GpuFault kind) {
  const int64_t i = GridThread();
  if (i >= count) return;
  const int32_t value = index[i];
  const bool good = value >= 0 && value < rows;
  if (!good) ReportFault(faults, kind, i, value, rows);
  row[i] = good ? value : static_cast<int32_t>(rows);
  entry[i] = static_cast<int32_t>(i);
}

// One after the last entry of the row that entry `first` begins.
__device__ int64_t EndOfRow(const int32_t* sorted, int64_t first, int64_t count) {
  const int32_t row = sorted[first];
  int64_t inside = first, end = first + 1;
  while (end < count && sorted[end] == row) {
    inside = end;
    end += end - first;
  }
  end = min(end, count);
  while (end - inside > 1) {
    const int64_t middle = inside + (end - inside) / 2;
    (sorted[middle] == row ? inside : end) = middle;
  }
  return end;
}

// Block (i, y): where entry i is the first of its row, channels of the y-th kThreads are summed by a thread each.
template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    AddKernel(const From* from, SortedRows sorted, To* to, int64_t count, int64_t rows, int64_t width) {
  const int64_t first = blockIdx.x;
  const int32_t row = sorted.row[first];
  if (row >= rows || (first > 0 && sorted.row[first - 1] == row)) return;
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (c >= width) return;
  const int64_t end = EndOfRow(sorted.row, first, count);
  To* const target = to + row * width + c;
  float sum = ToFloat(*target);
  for (int64_t i = first; i < end; i += kAhead) {
    int32_t entries[kAhead];
    float values[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) entries[a] = sorted.entry[min(i + a, end - 1)];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) values[a] = ToFloat(from[entries[a] * width + c]);
#pragma unroll
    for (int a = 0; a < kAhead; ++a) sum += i + a < end ? values[a] : 0.f;
  }
  *target = FromFloat<To>(sum);
}

SortedRows SortRows(Stream& stream, GpuScratch& scratch, const Tensor& index, int64_t rows, GpuFault kind) {
  const int64_t count = index.size();
  LS_CHECK(count <= INT32_MAX && rows < INT32_MAX, "rows by index: expected fewer than 2^31, found {} of {}", count,
           rows);
  const cudaStream_t cuda = CudaStream(stream);
  const int bits = std::bit_width(static_cast<uint64_t>(rows));
  size_t sort_bytes = 0;
  const int32_t* none = nullptr;
  int32_t* nothing = nullptr;
  CudaCheck(cub::DeviceRadixSort::SortPairs(nullptr, sort_bytes, none, nothing, none, nothing, static_cast<int>(count),
                                            0, bits, cuda),
            "rows by index");
  ScratchCut cut;
  const int64_t row = cut.Add(count * 4), entry = cut.Add(count * 4), sorted_row = cut.Add(count * 4),
                sorted_entry = cut.Add(count * 4), temporary = cut.Add(static_cast<int64_t>(sort_bytes));
  char* const base = static_cast<char*>(scratch.Get(stream, std::max(cut.bytes, kLeastScratch)));
  const auto at = [&](int64_t offset) { return reinterpret_cast<int32_t*>(base + offset); };
  EntriesKernel<<<GridFor(count, 256), 256, 0, cuda>>>(GpuData<int32_t>(index), at(row), at(entry), count, rows,
                                                       StreamFaults(stream), kind);
  CudaCheck(cub::DeviceRadixSort::SortPairs(base + temporary, sort_bytes, static_cast<const int32_t*>(at(row)),
                                            at(sorted_row), static_cast<const int32_t*>(at(entry)), at(sorted_entry),
                                            static_cast<int>(count), 0, bits, cuda),
            "rows by index");
  return {at(sorted_row), at(sorted_entry)};
}

}  // namespace

void AddRowsInOrder(Stream& stream, GpuScratch& scratch, const Tensor& from, const Tensor& index, const Tensor& to,
                    int64_t rows, int64_t width, GpuFault kind) {
  const int64_t count = index.size(), slices = CeilDiv(width, kThreads);
  if (count == 0 || width == 0) return;
  LS_CHECK(slices <= 65535, "rows by index: expected rows of at most {} elements, found {}", 65535 * kThreads, width);
  const SortedRows sorted = SortRows(stream, scratch, index, rows, kind);
  const dim3 grid(GridFor(count, 1), static_cast<unsigned>(slices));
  DispatchFloatGpu(from.dtype, [&]<typename From>() {
    DispatchFloatGpu(to.dtype, [&]<typename To>() {
      AddKernel<<<grid, kThreads, 0, CudaStream(stream)>>>(GpuData<From>(from), sorted, GpuData<To>(to), count, rows,
                                                           width);
    });
  });
}

}  // namespace longspan
