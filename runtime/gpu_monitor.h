// GpuMonitor: what the driver says of one GPU while a program runs: clocks and why they are held down, power,
// temperature, memory errors. It asks NVIDIA's management library (NVML), which it finds at run time, once a second on
// a thread of its own. Where there is no such library it says nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace longspan {

// Numbers that the GPU does not have are 0.
struct GpuReading {
  double at = 0;                            // WallSeconds
  double sm_clock = 0, most_sm_clock = 0;   // MHz: now, and what the GPU can
  double memory_clock = 0;                  // MHz
  double power = 0, power_limit = 0;        // watts
  double temperature = 0;                   // of the chip, degrees Celsius
  uint64_t held = 0;                        // why its clocks are held down, as NVML's bits: GpuHeldBy
  uint64_t corrected = 0, uncorrected = 0;  // memory errors (ECC) since its driver was loaded
};

constexpr double kGpuReadingSeconds = 1;  // from one to the next

// In words what slows a GPU down that works: heat, power, or its hardware. "" where these bits hold none of it.
std::string GpuHeldBy(uint64_t held);

class GpuMonitor {
 public:
  // `address` is that on the PCI bus (GpuAddress, runtime/device.h). LONGSPAN_NVML, in the environment, is the path of
  // another library than the system's (for tests).
  explicit GpuMonitor(const std::string& address);
  ~GpuMonitor();  // leaves the thread to itself where the driver has not answered for a second: a program must end
  GpuMonitor(const GpuMonitor&) = delete;
  GpuMonitor& operator=(const GpuMonitor&) = delete;

  std::vector<GpuReading> Take();  // the readings since the last call
  std::string TakeProblem();       // once, why there are no more: a sentence; else ""

 private:
  struct Shared;
  static void Watch(Shared& shared, const std::string& address);  // the thread

  const std::shared_ptr<Shared> shared_;  // with the thread
  std::thread thread_;
};

}  // namespace longspan
