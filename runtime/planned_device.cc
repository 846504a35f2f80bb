#include "runtime/planned_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

using ScratchTable = std::map<std::string, int64_t>;  // bytes of each family

class PlannedStream : public Stream {
 public:
  PlannedStream(DeviceKind kind, std::shared_ptr<ScratchTable> scratch) : kind_(kind), scratch_(std::move(scratch)) {}
  DeviceKind kind() const override { return kind_; }
  bool planned() const override { return true; }
  void Enqueue(std::function<void()>) override {}
  void Record(Event&) override {}
  void Wait(const Event&, const char*) override {}
  void Synchronize() override {}
  ScratchTable& scratch() { return *scratch_; }

 private:
  DeviceKind kind_;
  std::shared_ptr<ScratchTable> scratch_;
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
  std::unique_ptr<Stream> MakeStream(const std::string&) override {
    return std::make_unique<PlannedStream>(kind_, scratch_);
  }
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
  const ScratchTable& scratch() const { return *scratch_; }

 private:
  const DeviceKind kind_;
  const uint8_t byte_;
  const std::shared_ptr<ScratchTable> scratch_ = std::make_shared<ScratchTable>();
  std::map<void*, size_t> sizes_;  // of what is allocated
};

}  // namespace

std::unique_ptr<Device> MakePlannedDevice(DeviceKind kind, uint8_t byte) {
  return std::make_unique<PlannedDevice>(kind, byte);
}

void PlanScratch(Stream& stream, const std::string& what, int64_t bytes) {
  if (!stream.planned() || stream.kind() != DeviceKind::kGpu) return;
  int64_t& most = static_cast<PlannedStream&>(stream).scratch()[what];
  most = std::max(most, bytes);
}

int64_t PlannedScratchBytes(const Device& planned) {
  int64_t sum = 0;
  for (const auto& [what, bytes] : dynamic_cast<const PlannedDevice&>(planned).scratch()) sum += bytes;
  return sum;
}

}  // namespace longspan
