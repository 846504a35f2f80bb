// Plays libnvidia-ml for tests. Every address is a GPU of 1980 MHz, but the one in STUB_NVML_HOT is held at 1095 MHz by
// heat; the call named in STUB_NVML_FAILS fails, with STUB_NVML_HANGS the clocks never come. Compiled with
// STUB_NVML_WITHOUT_POWER it lacks a function.
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace {

constexpr int kGpuIsLost = 15;

int Status(const char* call) {
  const char* const fails = std::getenv("STUB_NVML_FAILS");
  return fails && std::string(fails) == call ? kGpuIsLost : 0;
}

struct Gpu {
  bool hot;
} cool{false}, hot{true};

bool Hot(const void* gpu) { return static_cast<const Gpu*>(gpu)->hot; }

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): the names are NVML's
extern "C" {

const char* nvmlErrorString(int status) { return status == kGpuIsLost ? "GPU is lost" : "Success"; }
int nvmlInit_v2() { return Status("nvmlInit_v2"); }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* address, void** gpu) {
  const char* const name = std::getenv("STUB_NVML_HOT");
  *gpu = name && std::string(name) == address ? &hot : &cool;
  return 0;
}
int nvmlDeviceGetClockInfo(void* gpu, int type, unsigned* mhz) {
  while (std::getenv("STUB_NVML_HANGS")) pause();
  *mhz = type == 2 ? 2619 : Hot(gpu) ? 1095 : 1980;
  return Status("nvmlDeviceGetClockInfo");
}
int nvmlDeviceGetMaxClockInfo(void*, int, unsigned* mhz) {
  *mhz = 1980;
  return 0;
}
#ifndef STUB_NVML_WITHOUT_POWER
int nvmlDeviceGetPowerUsage(void* gpu, unsigned* milliwatts) {
  *milliwatts = Hot(gpu) ? 310500 : 640000;
  return 0;
}
#endif
int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned* milliwatts) {
  *milliwatts = 700000;
  return 0;
}
int nvmlDeviceGetTemperature(void* gpu, int, unsigned* celsius) {
  *celsius = Hot(gpu) ? 91 : 55;
  return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void* gpu, unsigned long long* bits) {
  *bits = Hot(gpu) ? 0x8 | 0x40 : 0;
  return 0;
}
int nvmlDeviceGetTotalEccErrors(void*, int, int, unsigned long long*) { return 3; }  // such a GPU counts none

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
