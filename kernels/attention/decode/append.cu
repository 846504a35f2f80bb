// What begins a step of decoding: its entries and queries, written to device memory, and its new rows, which go to
// their pages. Bound by launches.
#include <algorithm>

#include "kernels/attention/decode/gpu_decode.h"
#include "kernels/attention/decode/rows.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 128;
constexpr int kGivenEntries = 224;  // that travel as a kernel's parameters

struct GivenEntries {
  int4 entries[kGivenEntries];
  int first, count;
};

__device__ void WriteEntry(int4* entries, int2* queries, int number, int4 entry) {
  entries[number] = entry;
  for (int i = 0; i < entry.z; ++i) queries[entry.w + i] = make_int2(number, entry.y + i);
}

__global__ void GivenKernel(int4* entries, int2* queries, const __grid_constant__ GivenEntries given) {
  for (int i = threadIdx.x; i < given.count; i += kThreads) {
    WriteEntry(entries, queries, given.first + i, given.entries[i]);
  }
}

__global__ void GrowingKernel(int4* entries, int2* queries, const int32_t* sequences, int32_t* lengths, int entry_count,
                              int count) {
  for (int i = static_cast<int>(GridThread()); i < entry_count; i += static_cast<int>(GridThreads())) {
    WriteEntry(entries, queries, i, make_int4(sequences == nullptr ? i : sequences[i], lengths[i], count, i * count));
    lengths[i] += count;
  }
}

// Rows of `units` units of 8 bytes from x to the pages of y.
struct Move {
  const uint2* x;
  uint2* y;
  int units, ring_pages;
};
struct Moves {
  Move of[6];
};

__global__ void __launch_bounds__(kThreads)
    AppendKernel(const __grid_constant__ StepView step, const __grid_constant__ Moves moves, int page_rows) {
  const int row = blockIdx.x;
  const Move& move = moves.of[blockIdx.y];
  const int2 query = step.queries[row];
  const PagesView pages = {step.TableOf(query.x), move.ring_pages, step.entries[query.x].x, page_rows};
  const int64_t to = pages.RowOf(query.y);
  for (int i = threadIdx.x; i < move.units; i += kThreads) {
    move.y[to * move.units + i] = move.x[static_cast<int64_t>(row) * move.units + i];
  }
}

}  // namespace

void GpuDecode::Begin(Stream& stream, const DecodeStep& step, std::span<const DecodeEntry> entries) {
  auto* const to = GpuData<int4>(step.entries);
  auto* const queries = GpuData<int2>(step.queries);
  LaunchGpu(stream, "decode.begin", {}, [&](cudaStream_t cuda) {
    GivenEntries given;
    for (size_t first = 0; first < entries.size(); first += kGivenEntries) {
      given.first = static_cast<int>(first);
      given.count = static_cast<int>(std::min<size_t>(kGivenEntries, entries.size() - first));
      for (int i = 0; i < given.count; ++i) {
        const DecodeEntry& entry = entries[first + i];
        given.entries[i] = make_int4(entry.sequence, entry.length, entry.count, entry.row);
      }
      GivenKernel<<<1, kThreads, 0, cuda>>>(to, queries, given);
    }
  });
}

void GpuDecode::Begin(Stream& stream, const DecodeStep& step, const Tensor& sequences, const Tensor& lengths,
                      int64_t count) {
  const int64_t entries = step.entries.dim(0);
  LaunchGpu(stream, "decode.begin", {}, [&](cudaStream_t cuda) {
    GrowingKernel<<<GridFor(entries, kThreads), kThreads, 0, cuda>>>(
        GpuData<int4>(step.entries), GpuData<int2>(step.queries), GpuData<const int32_t>(sequences),
        GpuData<int32_t>(lengths), static_cast<int>(entries), static_cast<int>(count));
  });
}

void GpuDecode::Append(Stream& stream, const DecodeAppendArgs& args) {
  Moves moves = {};
  unsigned count = 0;
  double bytes = 0;
  for (const DecodeAppendArgs::Branch& branch : args.branches) {
    for (const auto& [x, y] : {std::pair(&branch.k, &branch.to.k), {&branch.v, &branch.to.v}}) {
      moves.of[count++] = {GpuData<const uint2>(*x), GpuData<uint2>(*y),
                           static_cast<int>(x->dim(1) * x->dim(2) * DTypeSize(x->dtype) / int64_t{sizeof(uint2)}),
                           static_cast<int>(branch.to.ring_pages)};
      bytes += 2.0 * static_cast<double>(x->bytes());
    }
  }
  LaunchGpu(stream, "decode.append", {0, bytes}, [&](cudaStream_t cuda) {
    AppendKernel<<<dim3(static_cast<unsigned>(args.step.queries.dim(0)), count), kThreads, 0, cuda>>>(
        ViewOf(args.step), moves, static_cast<int>(args.page_rows));
  });
}

}  // namespace longspan
