#include "runtime/memory.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <utility>

#include "runtime/rounding.h"

namespace longspan {
namespace {

constexpr MemoryUse kUses[] = {MemoryUse::kWeights,     MemoryUse::kGradients, MemoryUse::kOptimizer, MemoryUse::kKept,
                               MemoryUse::kActivations, MemoryUse::kExchange,  MemoryUse::kWorkspace};

std::atomic<int64_t> allocations = 0, scratch_bytes = 0;

class HeldTable {
 public:
  static HeldTable& Get() {
    static HeldTable& table = *new HeldTable;  // what is held may go after main
    return table;
  }
  void Count(const std::string& use, bool host, int64_t bytes) {
    const std::lock_guard lock(mutex_);
    Grow(&uses_[{host, use}], bytes);
    if (!host) Grow(&devices_, bytes);
  }
  std::vector<HeldMemory> Take() {
    const std::lock_guard lock(mutex_);
    std::vector<HeldMemory> rows;
    for (auto& [key, held] : uses_) rows.push_back({key.second, key.first, held.bytes, held.most});
    rows.push_back({"", false, devices_.bytes, devices_.most});
    for (auto& [key, held] : uses_) held.most = held.bytes;
    devices_.most = devices_.bytes;
    return rows;
  }

 private:
  struct Held {
    int64_t bytes = 0, most = 0;
  };
  static void Grow(Held* held, int64_t bytes) {
    held->bytes += bytes;
    held->most = std::max(held->most, held->bytes);
  }

  std::mutex mutex_;
  std::map<std::pair<bool, std::string>, Held> uses_;  // by whether of the host
  Held devices_;
};

double MiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// Of a line "KEY: 123 kB" in a file of /proc; -1 when there is none.
int64_t ProcBytes(const char* path, const std::string& wanted) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(wanted + ":")) return std::stoll(line.substr(wanted.size() + 1)) * 1024;
  }
  return -1;
}

}  // namespace

Buffer::Buffer(Device& device, int64_t bytes, const std::string& what)
    : device_(&device), data_(device.Allocate(bytes, what)), bytes_(bytes), use_(what) {
  CountHeld(use_, /*host=*/false, bytes_);
}

Buffer::~Buffer() {
  if (!data_) return;
  device_->Free(data_);
  CountHeld(use_, /*host=*/false, -bytes_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : device_(other.device_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      use_(std::move(other.use_)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(use_, other.use_);
  return *this;
}

const char* MemoryUseName(MemoryUse use) {
  switch (use) {
    case MemoryUse::kWeights:
      return "weights";
    case MemoryUse::kGradients:
      return "gradients";
    case MemoryUse::kOptimizer:
      return "optimizer";
    case MemoryUse::kKept:
      return "kept";
    case MemoryUse::kActivations:
      return "activations";
    case MemoryUse::kExchange:
      return "exchange";
    case MemoryUse::kWorkspace:
      return "workspace";
  }
  return "?";
}

int64_t Arena::Item::bytes() const { return RoundUp(shape.count() * DTypeSize(dtype), kTensorAlign); }

void Arena::Reserve(Tensor* slot, MemoryUse use, const std::string& name, DType dtype, const Shape& shape) {
  LS_CHECK(buffers_.empty(), "tensor {} reserved after the arena was committed", name);
  const auto turn = turns_.find(use);
  items_.push_back({slot, use, name, dtype, shape, turn != turns_.end() ? turn->second : Turn{}});
}

template <typename Place>
int64_t Arena::PlaceAll(MemoryUse use, const Place& place) const {
  std::map<Turn, int64_t> sizes;
  for (const Item& item : items_) {
    if (item.use == use) sizes[item.turn] += item.bytes();
  }
  // A lane is as long as its longest turn; all its turns begin where it does.
  std::map<Turn, int64_t> next;
  int64_t begin = 0, end = 0;
  int lane = -1;
  for (const auto& [turn, size] : sizes) {
    if (turn.lane != lane) begin = end;
    lane = turn.lane;
    next[turn] = begin;
    end = std::max(end, begin + size);
  }
  for (const Item& item : items_) {
    if (item.use != use) continue;
    place(item, next[item.turn]);
    next[item.turn] += item.bytes();
  }
  return end;
}

void Arena::Commit(Device& device) {
  LS_CHECK(buffers_.empty(), "an arena is committed once");
  const std::unique_ptr<Stream> stream = device.MakeStream("memory");
  for (MemoryUse use : kUses) {
    const int64_t bytes = PlaceAll(use, [](const Item&, int64_t) {});
    char* data = nullptr;  // of tensors without elements
    if (bytes > 0) {
      data = static_cast<char*>(buffers_.emplace_back(device, bytes, MemoryUseName(use)).data());
      device.FillBytes(*stream, Tensor(data, DType::kU8, device.kind(), {bytes}), 0xFF);
    }
    PlaceAll(use, [&](const Item& item, int64_t offset) {
      *item.slot = Tensor(data + offset, item.dtype, device.kind(), item.shape);
    });
  }
  stream->Synchronize();
}

int64_t Arena::bytes() const {
  int64_t sum = 0;
  for (MemoryUse use : kUses) sum += PlaceAll(use, [](const Item&, int64_t) {});
  return sum;
}

int64_t Arena::ReservedBytes(MemoryUse use) const {
  int64_t sum = 0;
  for (const Item& item : items_) sum += item.use == use ? item.bytes() : 0;
  return sum;
}

std::vector<MemoryRow> Arena::Rows() const {
  std::vector<MemoryRow> rows;
  for (MemoryUse use : kUses) {
    MemoryRow row{use, 0, 0, "", -1};
    row.bytes = PlaceAll(use, [&](const Item& item, int64_t) {
      row.tensors += 1;
      if (item.bytes() > row.largest_bytes) {
        row.largest_bytes = item.bytes();
        row.largest = item.name;
      }
    });
    if (row.tensors > 0) rows.push_back(row);
  }
  return rows;
}

std::string MemoryTable(const std::vector<MemoryRow>& rows, int64_t available, const std::vector<HostMemory>& host,
                        const std::vector<std::pair<std::string, int64_t>>& besides) {
  std::string text = fmt::format("  {:<12} {:>8} {:>12}  {}\n", "memory", "tensors", "MiB", "largest");
  int64_t total = 0;
  for (const MemoryRow& row : rows) {
    text += fmt::format("  {:<12} {:>8} {:>12.2f}  {} ({:.2f})\n", MemoryUseName(row.use), row.tensors, MiB(row.bytes),
                        row.largest, MiB(row.largest_bytes));
    total += row.bytes;
  }
  for (const auto& [what, bytes] : besides) {
    if (bytes > 0) text += fmt::format("  {:<12} {:>8} {:>12.2f}\n", what, "", MiB(bytes));
    total += bytes;
  }
  text += fmt::format("  {:<12} {:>8} {:>12.2f}", "total", "", MiB(total));
  if (available >= 0) text += fmt::format("  of {:.0f} MiB available", MiB(available));
  text += "\n";
  for (const auto& [what, bytes] : host) {
    if (bytes > 0) text += fmt::format("  {:<12} {:>8} {:>12.2f}  of host memory\n", what, "", MiB(bytes));
  }
  return text;
}

AllocationCounts CountedAllocations() { return {allocations, scratch_bytes}; }

void CountAllocation() { ++allocations; }

void CountScratch(int64_t bytes) {
  scratch_bytes += bytes;
  CountHeld("scratch", /*host=*/false, bytes);
}

void CountHeld(const std::string& use, bool host, int64_t bytes) { HeldTable::Get().Count(use, host, bytes); }

std::vector<HeldMemory> TakeHeldMemory() { return HeldTable::Get().Take(); }

int64_t AnonymousBytes() { return ProcBytes("/proc/self/status", "RssAnon"); }

int64_t ControlGroupBytes(const std::string& root, const std::string& folder) {
  int64_t least = INT64_MAX;
  for (std::filesystem::path group = folder; group.string().starts_with(root); group = group.parent_path()) {
    std::ifstream limit_file(group / "memory.max"), used_file(group / "memory.current"), stat(group / "memory.stat");
    int64_t limit = 0, used = 0;
    if (!(limit_file >> limit) || !(used_file >> used)) continue;  // "max" is no limit
    int64_t value = 0;
    for (std::string key; stat >> key >> value;) {
      if (key == "inactive_file" || key == "active_file") used -= value;  // goes when others need it
    }
    least = std::min(least, std::max<int64_t>(0, limit - used));
  }
  return least;
}

int64_t AvailableHostBytes() {
  const std::string root = "/sys/fs/cgroup";
  std::string own = root;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.starts_with("0::")) own += line.substr(3);
  }
  while (own.ends_with('/')) own.pop_back();
  return std::min(ProcBytes("/proc/meminfo", "MemAvailable"), ControlGroupBytes(root, own));
}

}  // namespace longspan
