// Who owns memory.
//
//   Buffer   one allocation, freed with its owner
//   Arena    planned memory: tensors are reserved by name and category, then cut from one allocation per category
//
// Nothing is allocated inside a training step: everything is reserved before step 1, and the table says how much.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/device.h"
#include "runtime/tensor.h"

namespace longspan {

class Buffer {
 public:
  Buffer() = default;
  Buffer(Device& device, int64_t bytes, const std::string& what);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

enum class MemoryUse { kWeights, kGradients, kOptimizer, kActivations, kExchange, kWorkspace };
const char* MemoryUseName(MemoryUse use);

struct MemoryRow {
  MemoryUse use;
  int64_t tensors;
  int64_t bytes;
  std::string largest;  // name of the largest tensor
  int64_t largest_bytes;
};

class Arena {
 public:
  // Plans a tensor; `*slot` becomes its view at Commit() and must stay where it is until then.
  void Reserve(Tensor* slot, MemoryUse use, const std::string& name, DType dtype, const Shape& shape);
  // From here on activations and exchange buffers lie over those reserved after earlier calls: for what is used by
  // turns. Other uses are not touched.
  void Overlay() { overlay_ = ++overlays_; }
  void EndOverlay() { overlay_ = 0; }
  // Allocates. The memory is filled with 0xFF bytes (NaN for floats), so that reading the unwritten shows.
  void Commit(Device& device);
  int64_t bytes() const;
  std::vector<MemoryRow> Rows() const;  // one row per use that has tensors, in the order of MemoryUse

 private:
  struct Item {
    Tensor* slot;
    MemoryUse use;
    std::string name;
    DType dtype;
    Shape shape;
    int overlay;  // 0: alone
  };
  // Calls place(item, offset) for each item of a use; returns the bytes of all.
  template <typename Place>
  int64_t PlaceAll(MemoryUse use, const Place& place) const;

  int overlay_ = 0, overlays_ = 0;
  std::vector<Item> items_;
  std::vector<Buffer> buffers_;
};

// The table printed before step 1 and by --dry-run: one line per use, a total, and `available` bytes when not negative.
std::string MemoryTable(const std::vector<MemoryRow>& rows, int64_t available);

int64_t PeakResidentBytes();   // of this process, from the system
int64_t AvailableHostBytes();  // of this machine, -1 when unknown

}  // namespace longspan
