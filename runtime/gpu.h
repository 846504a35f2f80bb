// What kernels and communication need of the GPU's runtime. Only in builds with CUDA; device_gpu.cc implements it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <string>

#include "runtime/device.h"
#include "runtime/rounding.h"
#include "runtime/trace.h"

namespace longspan {

// Throws Error naming `what` and CUDA's words, with the caller's file and line, unless status is cudaSuccess.
void CudaCheck(cudaError_t status, const char* what, const char* file = __builtin_FILE(), int line = __builtin_LINE());

// The CUDA stream of a GPU stream, whose device becomes the calling thread's current one. Refuses a CPU stream.
cudaStream_t CudaStream(Stream& stream);
// Of its GPU.
int Multiprocessors(Stream& stream);

// What a kernel found wrong in data that only the device has seen: out-of-range indices. A kernel reports by
// ReportFault (kernels/base/gpu_common.cuh); the stream's next Synchronize throws Error. Results until then are NaN or
// skipped where the fault is.
enum class GpuFault : int { kToken, kTarget, kIndex };
struct GpuFaults {
  static constexpr int kKinds = 3;
  // By kind. 0 = none; else 1<<63 | position << 32 | value, of one of the faults.
  unsigned long long found[kKinds];
  long long limit[kKinds];  // values were expected in [0,limit)
};
// In memory that host and device share; lives as long as the stream.
GpuFaults* StreamFaults(Stream& stream);

// For Device::CompareClocks, of the device that `stream` is of.
void CompareGpuClock(cudaStream_t stream, int device);

// One span of the trace: from construction to End in the stream's order, timed by events, read when the trace resolves
// it. Of a stream that is being captured (Device::Capture) there are none.
class GpuSpan {
 public:
  GpuSpan(Stream& stream, const char* name, const Cost& cost, const TransferId& transfer = {});
  ~GpuSpan();  // forgets a span that did not end
  GpuSpan(const GpuSpan&) = delete;
  GpuSpan& operator=(const GpuSpan&) = delete;
  cudaStream_t stream() const { return stream_; }
  void End();  // also throws what a launch since construction did wrong

 private:
  cudaStream_t stream_;
  int device_;
  TraceSpan span_;
  cudaEvent_t begin_ = nullptr;
};

// Runs work(cudaStream_t), which launches kernels on it, as the span `name` (a literal).
template <typename Work>
void LaunchGpu(Stream& stream, const char* name, const Cost& cost, const Work& work, const TransferId& transfer = {}) {
  GpuSpan span(stream, name, cost, transfer);
  work(span.stream());
  span.End();
}

// Scratch of one family of kernels, one buffer a stream, which only grows: the first calls of a run allocate (counted,
// runtime/memory.h), later ones of the same sizes never do. Contents do not survive to the next Get.
class GpuScratch {
 public:
  explicit GpuScratch(std::string what) : what_(std::move(what)) {}
  ~GpuScratch();
  GpuScratch(const GpuScratch&) = delete;
  GpuScratch& operator=(const GpuScratch&) = delete;
  void* Get(Stream& stream, int64_t bytes);  // 256-byte aligned

 private:
  struct Block {
    void* data = nullptr;
    int64_t bytes = 0;
  };
  std::string what_;
  std::map<cudaStream_t, Block> blocks_;
};

// Offsets of several pieces of one scratch: const int64_t a = cut.Add(bytes_a), b = cut.Add(bytes_b); Get(cut.bytes).
struct ScratchCut {
  int64_t bytes = 0;
  int64_t Add(int64_t piece) {
    const int64_t offset = bytes;
    bytes += RoundUp(piece, 256);
    return offset;
  }
};

}  // namespace longspan
