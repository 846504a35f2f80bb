// Memory of a CPU kernel that lives as long as its thread, and is counted as scratch (runtime/memory.h).
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "runtime/memory.h"

namespace longspan {

// Aligned memory that only grows; its contents are undefined after Get.
template <typename T>
class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { Clear(); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* Get(int64_t count) {
    if (count > count_) {
      Clear();
      data_.reset(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))));
      count_ = count;
      CountScratch(static_cast<int64_t>(count * sizeof(T)));
    }
    return data_.get();
  }

 private:
  void Clear() {
    data_.reset();
    CountScratch(-static_cast<int64_t>(count_ * sizeof(T)));
    count_ = 0;
  }
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t count_ = 0;
};

}  // namespace longspan
