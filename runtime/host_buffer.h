// HostBuffer: page-locked host memory through which data passes to and from a device. It grows to its largest use and
// stays.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "runtime/device.h"
#include "runtime/memory.h"

namespace longspan {

class HostBuffer {
 public:
  explicit HostBuffer(std::string what) : what_(std::move(what)) {}
  ~HostBuffer() { Release(); }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;

  // At least `bytes` bytes; what earlier calls returned, and what was in it, is gone when it grows. The device outlives
  // the buffer, and is the same in all calls.
  void* Get(Device& device, int64_t bytes) {
    if (bytes > bytes_ || data_ == nullptr) {
      Release();
      data_ = device.AllocateHost(bytes, what_);
      device_ = &device;
      bytes_ = bytes;
      CountHeld(what_, /*host=*/true, bytes_);
    }
    return data_;
  }

 private:
  void Release() {
    if (!data_) return;
    device_->FreeHost(data_);
    CountHeld(what_, /*host=*/true, -bytes_);
    data_ = nullptr;
  }

  std::string what_;
  Device* device_ = nullptr;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace longspan
