// Who owns memory.
//
//   Buffer   one allocation, freed with its owner
//   Arena    planned memory: tensors are reserved by name and category, then cut from one allocation per category
//
// Nothing is allocated inside a training step: everything is reserved before step 1, and the table says how much.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
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
  std::string use_;
};

// What this process holds for one use, of devices or, page-locked, of the host.
struct HeldMemory {
  std::string use;  // "weights", .., as whoever allocates it calls it; "scratch" is that of kernels and transfers
  bool host = false;
  int64_t bytes = 0;
  int64_t most = 0;  // at a time since the last call
};
// By use; behind them, with an empty use, all that is on devices.
std::vector<HeldMemory> TakeHeldMemory();
void CountHeld(const std::string& use, bool host, int64_t bytes);  // by which it grew

// kKept: what recomputation starts from, and offloading moves to the host; the other activations can be made again.
// kWorkspace takes no turns: what must stay while layers take theirs lies there.
enum class MemoryUse { kWeights, kGradients, kOptimizer, kKept, kActivations, kExchange, kWorkspace };
const char* MemoryUseName(MemoryUse use);

struct MemoryRow {
  MemoryUse use;
  int64_t tensors;
  int64_t bytes;
  std::string largest;  // name of the largest tensor
  int64_t largest_bytes;
};

constexpr int64_t kTensorAlign = 256;  // bytes, of every tensor in an arena

class Arena {
 public:
  // Plans a tensor; `*slot` becomes its view at Commit() and must stay where it is until then.
  void Reserve(Tensor* slot, MemoryUse use, const std::string& name, DType dtype, const Shape& shape);
  // From here on tensors of `use` lie over those reserved after earlier calls with the same lane: for what is used by
  // turns. Lanes lie side by side.
  void BeginTurn(MemoryUse use, int lane = 0) { turns_[use] = {lane, ++turn_count_}; }
  void EndTurns() { turns_.clear(); }
  // Allocates. The memory is filled with 0xFF bytes (NaN for floats), so that reading the unwritten shows.
  void Commit(Device& device);
  int64_t bytes() const;
  int64_t ReservedBytes(MemoryUse use) const;  // as if none took turns
  std::vector<MemoryRow> Rows() const;         // one row per use that has tensors, in the order of MemoryUse

 private:
  struct Turn {
    int lane = -1;  // -1: alone
    int number = 0;
    auto operator<=>(const Turn&) const = default;
  };
  struct Item {
    Tensor* slot;
    MemoryUse use;
    std::string name;
    DType dtype;
    Shape shape;
    Turn turn;
    int64_t bytes() const;
  };
  // Calls place(item, offset) for each item of a use; returns the bytes of all.
  template <typename Place>
  int64_t PlaceAll(MemoryUse use, const Place& place) const;

  int turn_count_ = 0;
  std::map<MemoryUse, Turn> turns_;  // that reservations are now of; absent: alone
  std::vector<Item> items_;
  std::vector<Buffer> buffers_;
};

// Page-locked for a GPU.
struct HostMemory {
  std::string what;
  int64_t bytes = 0;
};

// The table printed before step 1 and by --dry-run: one line per use and for what is taken `besides`, a total,
// `available` bytes when not negative, and what is taken of the host's memory.
std::string MemoryTable(const std::vector<MemoryRow>& rows, int64_t available, const std::vector<HostMemory>& host = {},
                        const std::vector<std::pair<std::string, int64_t>>& besides = {});

// Every allocation of the process on a device, in page-locked host memory or as scratch of GPU kernels. Between two
// equal counts nothing was allocated: a training step must not. Scratch of CPU kernels may grow with what queries see.
struct AllocationCounts {
  int64_t allocations = 0;
  int64_t scratch_bytes = 0;  // of kernels and transfers, now
};
AllocationCounts CountedAllocations();
// For those who allocate.
void CountAllocation();
void CountScratch(int64_t bytes);  // by which scratch grew; also held

// Of this process, from the system: neither files that it maps nor what its parent had. -1 when unknown.
int64_t AnonymousBytes();
// Of this machine, and no more than its control groups (cgroup v2: containers, SLURM) leave to this process. -1 when
// unknown.
int64_t AvailableHostBytes();
// What the control group of `folder`, and those above it up to `root`, leave of their limits; INT64_MAX without one.
int64_t ControlGroupBytes(const std::string& root, const std::string& folder);

}  // namespace longspan
