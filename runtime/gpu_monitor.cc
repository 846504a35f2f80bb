#include "runtime/gpu_monitor.h"

#include <dlfcn.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string_view>
#include <utility>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

// Of NVML's interface what is used here, as nvml.h of CUDA 13 and before declares it: builds do not need that header.
using Status = int;       // nvmlReturn_t
using Handle = void*;     // nvmlDevice_t
using Number = unsigned;  // unsigned int
using Count = unsigned long long;

constexpr Status kSuccess = 0, kNotSupported = 3;
constexpr int kSmClock = 1, kMemoryClock = 2;    // nvmlClockType_t
constexpr int kChip = 0;                         // nvmlTemperatureSensors_t
constexpr int kCorrected = 0, kUncorrected = 1;  // nvmlMemoryErrorType_t
constexpr int kSinceDriver = 0;                  // nvmlEccCounterType_t: volatile

// nvmlClocksThrottleReason..
constexpr uint64_t kPowerCap = 0x4, kHardware = 0x8, kHeatByDriver = 0x20, kHeatByHardware = 0x40, kPowerBrake = 0x80;

// What ends the readings: a sentence.
struct NoReadings {
  std::string why;
};

// Its library stays loaded: it may have threads of its own.
class Nvml {
 public:
  // False: this machine has none.
  bool Load() {
    const char* const other = std::getenv("LONGSPAN_NVML");
    name_ = other ? other : "libnvidia-ml.so.1";
    library_ = dlopen(name_.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library_) {
      const std::string why = dlerror();
      if (!other && why.find("No such file") != std::string::npos) return false;
      throw NoReadings{why};
    }
    Find("nvmlErrorString", &error_text_);
    Find("nvmlInit_v2", &init_);
    Find("nvmlShutdown", &shutdown_);
    Find("nvmlDeviceGetHandleByPciBusId_v2", &handle_by_address_);
    Find("nvmlDeviceGetClockInfo", &clock_);
    Find("nvmlDeviceGetMaxClockInfo", &most_clock_);
    Find("nvmlDeviceGetPowerUsage", &power_);
    Find("nvmlDeviceGetEnforcedPowerLimit", &power_limit_);
    Find("nvmlDeviceGetTemperature", &temperature_);
    Find("nvmlDeviceGetCurrentClocksThrottleReasons", &held_);
    Find("nvmlDeviceGetTotalEccErrors", &errors_);
    Require("nvmlInit_v2", init_());
    begun_ = true;
    return true;
  }
  Nvml() = default;
  ~Nvml() {
    if (begun_) shutdown_();
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  void Choose(const std::string& address) {
    Require(fmt::format("nvmlDeviceGetHandleByPciBusId_v2({})", address), handle_by_address_(address.c_str(), &gpu_));
    most_sm_clock_ =
        Ask<Number>("nvmlDeviceGetMaxClockInfo", [&](Number* mhz) { return most_clock_(gpu_, kSmClock, mhz); });
  }

  GpuReading Read() {
    GpuReading now;
    now.at = WallSeconds();
    now.most_sm_clock = most_sm_clock_;
    now.sm_clock = Ask<Number>("nvmlDeviceGetClockInfo", [&](Number* mhz) { return clock_(gpu_, kSmClock, mhz); });
    now.memory_clock =
        Ask<Number>("nvmlDeviceGetClockInfo", [&](Number* mhz) { return clock_(gpu_, kMemoryClock, mhz); });
    now.power = 1e-3 * Ask<Number>("nvmlDeviceGetPowerUsage", [&](Number* mw) { return power_(gpu_, mw); });
    now.power_limit =
        1e-3 * Ask<Number>("nvmlDeviceGetEnforcedPowerLimit", [&](Number* mw) { return power_limit_(gpu_, mw); });
    now.temperature =
        Ask<Number>("nvmlDeviceGetTemperature", [&](Number* celsius) { return temperature_(gpu_, kChip, celsius); });
    now.held = Ask<Count>("nvmlDeviceGetCurrentClocksThrottleReasons", [&](Count* bits) { return held_(gpu_, bits); });
    const auto errors = [&](int type) {
      return Ask<Count>("nvmlDeviceGetTotalEccErrors",
                        [&](Count* count) { return errors_(gpu_, type, kSinceDriver, count); });
    };
    now.corrected = errors(kCorrected);
    now.uncorrected = errors(kUncorrected);
    return now;
  }

 private:
  template <typename Function>
  void Find(const char* symbol, Function** function) {
    *function = reinterpret_cast<Function*>(dlsym(library_, symbol));
    if (!*function) throw NoReadings{fmt::format("{} has no {}", name_, symbol)};
  }
  void Require(const std::string& call, Status status) const {
    if (status != kSuccess) throw NoReadings{fmt::format("{}: {}", call, error_text_(status))};
  }
  template <typename Value, typename Call>
  Value Ask(const char* name, const Call& call) const {
    Value value = 0;
    const Status status = call(&value);
    if (status == kNotSupported) return 0;
    Require(name, status);
    return value;
  }

  std::string name_;
  void* library_ = nullptr;
  bool begun_ = false;
  Handle gpu_ = nullptr;
  double most_sm_clock_ = 0;
  const char* (*error_text_)(Status) = nullptr;
  Status (*init_)() = nullptr;
  Status (*shutdown_)() = nullptr;
  Status (*handle_by_address_)(const char*, Handle*) = nullptr;
  Status (*clock_)(Handle, int, Number*) = nullptr;
  Status (*most_clock_)(Handle, int, Number*) = nullptr;
  Status (*power_)(Handle, Number*) = nullptr;
  Status (*power_limit_)(Handle, Number*) = nullptr;
  Status (*temperature_)(Handle, int, Number*) = nullptr;
  Status (*held_)(Handle, Count*) = nullptr;
  Status (*errors_)(Handle, int, int, Count*) = nullptr;
};

}  // namespace

std::string GpuHeldBy(uint64_t held) {
  std::string text;
  const auto add = [&](uint64_t bits, const char* words) {
    if ((held & bits) != 0) text += (text.empty() ? "" : ", ") + std::string(words);
  };
  add(kHeatByDriver | kHeatByHardware, "too hot");
  add(kPowerBrake, "power brake");
  add(kPowerCap, "power limit");
  if (text.empty()) add(kHardware, "hardware slowdown");
  return text;
}

struct GpuMonitor::Shared {
  bool StopsWithin(double seconds) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return stopping; });
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false, ended = false;
  std::vector<GpuReading> readings;
  std::string problem;
};

GpuMonitor::GpuMonitor(const std::string& address)
    : shared_(std::make_shared<Shared>()), thread_([shared = shared_, address] {
        Watch(*shared, address);
        const std::lock_guard lock(shared->mutex);
        shared->ended = true;
        shared->changed.notify_all();
      }) {}

GpuMonitor::~GpuMonitor() {
  bool ended = false;
  {
    std::unique_lock lock(shared_->mutex);
    shared_->stopping = true;
    shared_->changed.notify_all();
    ended = shared_->changed.wait_for(lock, std::chrono::seconds(1), [&] { return shared_->ended; });
  }
  ended ? thread_.join() : thread_.detach();
}

std::vector<GpuReading> GpuMonitor::Take() {
  const std::lock_guard lock(shared_->mutex);
  return std::exchange(shared_->readings, {});
}

std::string GpuMonitor::TakeProblem() {
  const std::lock_guard lock(shared_->mutex);
  return std::exchange(shared_->problem, {});
}

void GpuMonitor::Watch(Shared& shared, const std::string& address) {
  try {
    Nvml nvml;
    if (!nvml.Load()) return;
    nvml.Choose(address);
    do {
      const GpuReading now = nvml.Read();
      const std::lock_guard lock(shared.mutex);
      shared.readings.push_back(now);
    } while (!shared.StopsWithin(kGpuReadingSeconds));
  } catch (const NoReadings& end) {
    const std::lock_guard lock(shared.mutex);
    shared.problem = fmt::format("clocks, power and temperature of the GPU are not known: {}", end.why);
  }
}

}  // namespace longspan
