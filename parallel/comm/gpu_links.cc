#include "parallel/comm/gpu_links.h"

#include <algorithm>

#include "runtime/gpu.h"

namespace longspan {

CallsUnderWay::~CallsUnderWay() {
  for (cudaEvent_t event : events_) {
    if (event) cudaEventDestroy(event);
  }
}

void CallsUnderWay::Add(cudaStream_t stream, const CommCall& call, int64_t record) {
  if (record == 0) return;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  CudaCheck(cudaStreamIsCapturing(stream, &capture), call.name);
  if (capture != cudaStreamCaptureStatusNone) return FlightRecorder::Get().Done(record);
  const std::lock_guard lock(mutex_);
  CudaCheck(cudaGetDevice(&device_), call.name);
  if (count_ < kEvents) ++count_;
  const size_t newest = (first_ + count_ - 1) % kEvents;
  if (!events_[newest]) CudaCheck(cudaEventCreateWithFlags(&events_[newest], cudaEventDisableTiming), call.name);
  CudaCheck(cudaEventRecord(events_[newest], stream), call.name);
  records_[newest] = record;
}

void CallsUnderWay::TellDone() {
  const std::lock_guard lock(mutex_);
  if (count_ > 0) cudaSetDevice(device_);  // a thread that has none would take, and wake, the first
  int64_t done = 0;
  for (; count_ > 0 && cudaEventQuery(events_[first_]) == cudaSuccess; --count_) {
    done = records_[first_];
    first_ = (first_ + 1) % kEvents;
  }
  FlightRecorder::Get().DoneThrough(done);
}

LivingLinks& LivingLinks::Get() {
  static LivingLinks& living = *new LivingLinks;
  return living;
}

void LivingLinks::Enter(GpuLinks* links) {
  const std::lock_guard lock(mutex);
  all.push_back(links);
}

void LivingLinks::Leave(GpuLinks* links) {
  const std::lock_guard lock(mutex);
  std::erase(all, links);
}

}  // namespace longspan
