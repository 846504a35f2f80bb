#include "runtime/gpu.h"

#include <fmt/format.h>

#include <mutex>
#include <vector>

#include "runtime/memory.h"

namespace longspan {
namespace {

// Timing events of all devices, reused when their span has been read. They live as long as the process.
class EventPool {
 public:
  static EventPool& Get() {
    static EventPool& pool = *new EventPool;  // spans may end after main
    return pool;
  }
  // An event of the current device.
  cudaEvent_t Take(int device) {
    {
      const std::lock_guard lock(mutex_);
      std::vector<cudaEvent_t>& free = free_[device];
      if (!free.empty()) {
        const cudaEvent_t event = free.back();
        free.pop_back();
        return event;
      }
    }
    cudaEvent_t event = nullptr;
    CudaCheck(cudaEventCreate(&event), "making a timing event");
    return event;
  }
  void Return(int device, cudaEvent_t event) {
    const std::lock_guard lock(mutex_);
    free_[device].push_back(event);
  }

 private:
  std::mutex mutex_;
  std::map<int, std::vector<cudaEvent_t>> free_;
};

int CurrentDevice() {
  int device = 0;
  CudaCheck(cudaGetDevice(&device), "asking for the current GPU");
  return device;
}

bool Capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CudaCheck(cudaStreamIsCapturing(stream, &status), "asking whether a stream is captured");
  return status != cudaStreamCaptureStatusNone;
}

struct SpanEvents {
  cudaEvent_t begin, end;
};

double SpanSeconds(int device, const SpanEvents& events) {
  float milliseconds = 0;
  CudaCheck(cudaEventSynchronize(events.end), "waiting for the end of a span");
  CudaCheck(cudaEventElapsedTime(&milliseconds, events.begin, events.end), "timing a span");
  EventPool::Get().Return(device, events.begin);
  EventPool::Get().Return(device, events.end);
  return milliseconds * 1e-3;
}

}  // namespace

void CudaCheck(cudaError_t status, const char* what, const char* file, int line) {
  if (status == cudaSuccess) return;
  const char* const hint =
      status == cudaErrorNoKernelImageForDevice
          ? "; this program was built for other GPUs: build with CMAKE_CUDA_ARCHITECTURES for this one"
          : "";
  ThrowError(ExitCode::kRankFailed, file, line,
             fmt::format("{}: CUDA: {} ({}){}", what, cudaGetErrorString(status), cudaGetErrorName(status), hint));
}

GpuSpan::GpuSpan(Stream& stream, const char* name, const Cost& cost)
    : stream_(CudaStream(stream)), device_(CurrentDevice()), name_(name), cost_(cost) {
  if (Capturing(stream_)) return;
  begin_ = EventPool::Get().Take(device_);
  CudaCheck(cudaEventRecord(begin_, stream_), name_);
}

GpuSpan::~GpuSpan() {
  if (begin_) EventPool::Get().Return(device_, begin_);
}

void GpuSpan::End() {
  CudaCheck(cudaGetLastError(), name_);
  // A stream may have joined a capture since: by the very wait that is the span.
  if (!begin_ || Capturing(stream_)) return;
  const SpanEvents events{begin_, EventPool::Get().Take(device_)};
  CudaCheck(cudaEventRecord(events.end, stream_), name_);
  begin_ = nullptr;
  Trace::Get().AddPending(name_, cost_, [device = device_, events] { return SpanSeconds(device, events); });
}

GpuScratch::~GpuScratch() {
  for (const auto& [stream, block] : blocks_) {
    cudaFree(block.data);
    CountScratch(-block.bytes);
  }
}

void* GpuScratch::Get(Stream& stream, int64_t bytes) {
  Block& block = blocks_[CudaStream(stream)];
  if (bytes <= block.bytes) return block.data;
  const int64_t freed = block.bytes;
  cudaFree(block.data);  // waits for the kernels that use it
  block = {};
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    Fail(
        ExitCode::kRankFailed,
        "out of GPU memory: scratch of {} needs {} MiB; shorten the sequence, split it over more ranks, or leave other "
        "programs less",
        what_, (bytes >> 20) + 1);
  }
  CudaCheck(status, what_.c_str());
  CountAllocation();
  CountScratch(bytes - freed);
  block = {data, bytes};
  return block.data;
}

}  // namespace longspan
