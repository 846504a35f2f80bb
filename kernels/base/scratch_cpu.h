// Memory of a CPU kernel that lives as long as its thread.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace longspan {

// Aligned memory that only grows; its contents are undefined after Get.
template <typename T>
class Scratch {
 public:
  T* Get(int64_t count) {
    if (count > count_) {
      data_.reset();
      count_ = 0;
      data_.reset(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))));
      count_ = count;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t count_ = 0;
};

}  // namespace longspan
