#include "runtime/planned_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

class PlannedStream : public Stream {
 public:
  explicit PlannedStream(DeviceKind kind) : kind_(kind) {}
  DeviceKind kind() const override { return kind_; }
  bool planned() const override { return true; }
  void Enqueue(std::function<void()>) override {}
  void Record(Event&) override {}
  void Wait(const Event&, const char*) override {}
  void Synchronize() override {}

 private:
  DeviceKind kind_;
};

class PlannedTimer : public Timer {
 public:
  void Start(Stream&) override {}
  void Stop(Stream&) override {}
  double Seconds() override { return 0; }
};

class PlannedGraph : public Graph {
 public:
  explicit PlannedGraph(std::function<void()> enqueue) : enqueue_(std::move(enqueue)) {}
  void Launch() override { enqueue_(); }

 private:
  std::function<void()> enqueue_;
};

class PlannedDevice : public Device {
 public:
  PlannedDevice(DeviceKind kind, uint8_t byte) : kind_(kind), byte_(byte) {}
  DeviceKind kind() const override { return kind_; }
  std::string name() const override { return std::string("planned ") + DeviceName(kind_); }
  std::unique_ptr<Stream> MakeStream(const std::string&) override { return std::make_unique<PlannedStream>(kind_); }
  std::unique_ptr<Event> MakeEvent() override { return std::make_unique<Event>(); }
  std::unique_ptr<Timer> MakeTimer() override { return std::make_unique<PlannedTimer>(); }
  void* Allocate(int64_t bytes, const std::string& what) override {
    const size_t size = std::max<int64_t>(bytes, 1);
    void* const data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) Fail(ExitCode::kRankFailed, "out of addresses: {} needs {} bytes", what, bytes);
    sizes_[data] = size;
    return data;
  }
  void Free(void* data) noexcept override {
    const auto found = sizes_.find(data);
    if (found == sizes_.end()) return;
    munmap(data, found->second);
    sizes_.erase(found);
  }
  int64_t AvailableBytes() const override { return -1; }
  void* AllocateHost(int64_t bytes, const std::string& what) override { return Allocate(bytes, what); }
  void FreeHost(void* data) noexcept override { Free(data); }
  void Copy(Stream& stream, Tensor to, Tensor) override {
    Launch(stream, "memory.copy", {0, static_cast<double>(to.bytes())}, nullptr);
    if (to.dtype == DType::kU8 && to.size() > 0) std::memset(to.data, byte_, to.bytes());
  }
  void FillBytes(Stream& stream, Tensor tensor, uint8_t) override {
    Launch(stream, "memory.fill", {0, static_cast<double>(tensor.bytes())}, nullptr);
  }
  std::unique_ptr<Graph> Capture(Stream&, std::function<void()> enqueue) override {
    return std::make_unique<PlannedGraph>(std::move(enqueue));
  }

 private:
  const DeviceKind kind_;
  const uint8_t byte_;
  std::map<void*, size_t> sizes_;  // of what is allocated
};

}  // namespace

std::unique_ptr<Device> MakePlannedDevice(DeviceKind kind, uint8_t byte) {
  return std::make_unique<PlannedDevice>(kind, byte);
}

}  // namespace longspan
