#include "runtime/gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/memory.h"
#include "runtime/planted_fault.h"

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

double Seconds(cudaEvent_t begin, cudaEvent_t end) {
  float milliseconds = 0;
  CudaCheck(cudaEventElapsedTime(&milliseconds, begin, end), "timing a span");
  return milliseconds * 1e-3;
}

// An event of a device that happened at this time of the host's clock. Spans refer to it until they are read.
struct ClockPoint {
  ClockPoint() { CudaCheck(cudaEventCreate(&event), "making a timing event"); }
  ~ClockPoint() { cudaEventDestroy(event); }
  ClockPoint(const ClockPoint&) = delete;
  ClockPoint& operator=(const ClockPoint&) = delete;
  cudaEvent_t event = nullptr;
  double seconds = 0;
};

// The newest of each device.
class ClockPoints {
 public:
  static ClockPoints& Get() {
    static ClockPoints& points = *new ClockPoints;  // spans may be read after main
    return points;
  }
  std::shared_ptr<const ClockPoint> Of(int device) {
    const std::lock_guard lock(mutex_);
    return points_[device];
  }
  void Set(int device, std::shared_ptr<const ClockPoint> point) {
    const std::lock_guard lock(mutex_);
    points_[device] = std::move(point);
  }

 private:
  std::mutex mutex_;
  std::map<int, std::shared_ptr<const ClockPoint>> points_;
};

void ReadTimes(int device, const SpanEvents& events, const ClockPoint* clock, TraceSpan* span) {
  CudaCheck(cudaEventSynchronize(events.end), "waiting for the end of a span");
  span->seconds = Seconds(events.begin, events.end);
  if (clock) span->begin = clock->seconds + Seconds(clock->event, events.begin);
  EventPool::Get().Return(device, events.begin);
  EventPool::Get().Return(device, events.end);
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

// The best of some tries: what lies between the host's readings is the error.
void CompareGpuClock(cudaStream_t stream, int device) {
  constexpr int kTries = 5;
  std::shared_ptr<ClockPoint> best;
  double least = INFINITY;
  CudaCheck(cudaStreamSynchronize(stream), "comparing clocks");
  for (int i = 0; i < kTries; ++i) {
    auto point = std::make_shared<ClockPoint>();
    const double begin = WallSeconds();
    CudaCheck(cudaEventRecord(point->event, stream), "comparing clocks");
    CudaCheck(cudaEventSynchronize(point->event), "comparing clocks");
    const double between = WallSeconds() - begin;
    if (between >= least) continue;
    least = between;
    point->seconds = begin + between / 2;
    best = std::move(point);
  }
  ClockPoints::Get().Set(device, best);
}

GpuSpan::GpuSpan(Stream& stream, const char* name, const Cost& cost, const TransferId& transfer)
    : stream_(CudaStream(stream)), device_(CurrentDevice()) {
  span_.name = name;
  span_.cost = cost;
  span_.transfer = transfer;
  span_.place = CurrentPlace();
  span_.lane = stream.lane();
  PlantedFault::Get().Strike(span_.place);
  if (!Trace::Get().enabled() || Capturing(stream_)) return;
  begin_ = EventPool::Get().Take(device_);
  CudaCheck(cudaEventRecord(begin_, stream_), name);
}

GpuSpan::~GpuSpan() {
  if (begin_) EventPool::Get().Return(device_, begin_);
}

void GpuSpan::End() {
  CudaCheck(cudaGetLastError(), span_.name);
  // A stream may have joined a capture since: by the very wait that is the span.
  if (!begin_ || Capturing(stream_)) return;
  const SpanEvents events{begin_, EventPool::Get().Take(device_)};
  CudaCheck(cudaEventRecord(events.end, stream_), span_.name);
  begin_ = nullptr;
  Trace::Get().AddPending(span_, [device = device_, events, clock = ClockPoints::Get().Of(device_)](TraceSpan* span) {
    ReadTimes(device, events, clock.get(), span);
  });
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
    FailForMemory(
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
