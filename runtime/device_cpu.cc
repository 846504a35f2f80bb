// CPU device and its streams.
//
// Immediate streams run a task where it is enqueued. Reordering streams queue tasks, records and waits; whoever
// synchronises runs the heads of all queues in a random order (of a fixed seed) until its own is empty. A head that
// waits for an event not yet reached is passed over, so exactly the orders that the events allow can happen.
#include <omp.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <list>
#include <new>
#include <optional>
#include <random>

#include "runtime/count.h"
#include "runtime/device.h"
#include "runtime/memory.h"
#include "runtime/rounding.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

class CpuEvent : public Event {
 public:
  int64_t recorded = 0;  // records enqueued
  int64_t reached = 0;   // records whose preceding work is done
};

class CpuTimer : public Timer {
 public:
  void Start(Stream& stream) override {
    stream.Enqueue([this] { begin_ = WallSeconds(); });
  }
  void Stop(Stream& stream) override {
    stream_ = &stream;
    stream.Enqueue([this] { end_ = WallSeconds(); });
  }
  double Seconds() override {
    stream_->Synchronize();
    return end_ - begin_;
  }

 private:
  Stream* stream_ = nullptr;
  double begin_ = 0, end_ = 0;
};

class ImmediateStream : public Stream {
 public:
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  void Enqueue(std::function<void()> task) override { task(); }
  void Record(Event&) override {}
  void Wait(const Event&, const char*) override {}
  void Synchronize() override {}
};

class ReorderStream;

// All reordering streams of the process. One host thread drives them.
struct Reorderer {
  std::list<ReorderStream*> streams;
  std::mt19937_64 random;
  void RunUntilEmpty(ReorderStream& target);
};

Reorderer& TheReorderer() {
  static Reorderer reorderer;
  return reorderer;
}

class ReorderStream : public Stream {
 public:
  ReorderStream() { TheReorderer().streams.push_back(this); }
  ~ReorderStream() override { TheReorderer().streams.remove(this); }
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  void Enqueue(std::function<void()> task) override { queue_.push_back({std::move(task), nullptr, 0}); }
  void Record(Event& event) override {
    auto* cpu = static_cast<CpuEvent*>(&event);
    const int64_t number = ++cpu->recorded;
    Enqueue([cpu, number] { cpu->reached = std::max(cpu->reached, number); });
  }
  void Wait(const Event& event, const char*) override {
    const auto* cpu = static_cast<const CpuEvent*>(&event);
    queue_.push_back({nullptr, cpu, cpu->recorded});
  }
  void Synchronize() override { TheReorderer().RunUntilEmpty(*this); }

  bool empty() const { return queue_.empty(); }
  bool runnable() const {
    return !queue_.empty() && (!queue_.front().awaited || queue_.front().awaited->reached >= queue_.front().number);
  }
  void RunHead() {
    const Item item = std::move(queue_.front());
    queue_.pop_front();
    if (item.task) item.task();
  }

 private:
  struct Item {
    std::function<void()> task;
    const CpuEvent* awaited;
    int64_t number;
  };
  std::deque<Item> queue_;
};

void Reorderer::RunUntilEmpty(ReorderStream& target) {
  while (!target.empty()) {
    std::vector<ReorderStream*> ready;
    for (ReorderStream* stream : streams) {
      if (stream->runnable()) ready.push_back(stream);
    }
    LS_CHECK(!ready.empty(), "CPU streams: every stream waits for an event that no other stream will record");
    ready[random() % ready.size()]->RunHead();
  }
}

// What LONGSPAN_CPU_STREAMS says, until SetCpuStreamMode says otherwise.
std::optional<CpuStreamMode> chosen_mode;

CpuStreamMode ModeFromEnvironment() {
  const char* text = std::getenv("LONGSPAN_CPU_STREAMS");
  if (!text || std::strcmp(text, "immediate") == 0) return CpuStreamMode::kImmediate;
  uint64_t seed = 1;
  const char* end = text + std::strlen(text);
  const bool seeded = std::strncmp(text, "reorder:", 8) == 0;
  if (std::strcmp(text, "reorder") != 0 &&
      !(seeded && std::from_chars(text + 8, end, seed).ptr == end && text + 8 != end)) {
    Fail(ExitCode::kConfig, "LONGSPAN_CPU_STREAMS: expected immediate, reorder or reorder:SEED, found '{}'", text);
  }
  TheReorderer().random.seed(seed);
  return CpuStreamMode::kReorder;
}

class CpuGraph : public Graph {
 public:
  explicit CpuGraph(std::function<void()> enqueue) : enqueue_(std::move(enqueue)) {}
  void Launch() override { enqueue_(); }

 private:
  std::function<void()> enqueue_;
};

class CpuDevice : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string name() const override { return fmt::format("cpu ({})", Count(omp_get_max_threads(), "thread")); }
  std::unique_ptr<Stream> MakeStream(const std::string&) override {
    if (!chosen_mode) chosen_mode = ModeFromEnvironment();
    if (*chosen_mode == CpuStreamMode::kReorder) return std::make_unique<ReorderStream>();
    return std::make_unique<ImmediateStream>();
  }
  std::unique_ptr<Event> MakeEvent() override { return std::make_unique<CpuEvent>(); }
  std::unique_ptr<Timer> MakeTimer() override { return std::make_unique<CpuTimer>(); }
  void* Allocate(int64_t bytes, const std::string& what) override {
    constexpr int64_t kAlign = 64;
    const int64_t size = RoundUp(std::max<int64_t>(bytes, 1), kAlign);
    void* data = std::aligned_alloc(kAlign, size);
    CountAllocation();
    if (!data) FailForMemory("out of host memory: {} needs {} bytes", what, bytes);
    return data;
  }
  void Free(void* data) noexcept override { std::free(data); }
  int64_t AvailableBytes() const override { return AvailableHostBytes(); }
  void* AllocateHost(int64_t bytes, const std::string& what) override { return Allocate(bytes, what); }
  void FreeHost(void* data) noexcept override { Free(data); }
  void Copy(Stream& stream, Tensor to, Tensor from) override {
    LS_CHECK(to.dtype == from.dtype && to.size() == from.size() && to.contiguous() && from.contiguous(),
             "copy of {} {} to {} {}: sizes, dtypes and contiguity must agree", DTypeName(from.dtype),
             from.shape.ToString(), DTypeName(to.dtype), to.shape.ToString());
    LS_CHECK(to.device == DeviceKind::kCpu && from.device == DeviceKind::kCpu,
             "copy from {} to {}: a cpu device copies host memory only; ask the gpu's device", DeviceName(from.device),
             DeviceName(to.device));
    Launch(stream, "memory.copy", {0, static_cast<double>(to.bytes())}, [to, from] {
      if (to.bytes() > 0) std::memmove(to.data, from.data, to.bytes());  // null without elements
    });
  }
  void FillBytes(Stream& stream, Tensor tensor, uint8_t value) override {
    LS_CHECK(tensor.contiguous(), "fill of a tensor {} that is not contiguous", tensor.shape.ToString());
    Launch(stream, "memory.fill", {0, static_cast<double>(tensor.bytes())},
           [tensor, value] { std::memset(tensor.data, value, tensor.bytes()); });
  }
  std::unique_ptr<Graph> Capture(Stream&, std::function<void()> enqueue) override {
    return std::make_unique<CpuGraph>(std::move(enqueue));
  }
};

}  // namespace

void SetCpuStreamMode(CpuStreamMode mode, uint64_t seed) {
  chosen_mode = mode;
  TheReorderer().random.seed(seed);
}

std::unique_ptr<Device> MakeCpuDevice() { return std::make_unique<CpuDevice>(); }

}  // namespace longspan
