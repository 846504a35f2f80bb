// What a monitor makes of a library that plays NVML (tests/support/stub_nvml.cc): readings, or one sentence.
#include "runtime/gpu_monitor.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr double kPatience = 60;  // seconds, on a loaded machine

class Monitors : public testing::Test {
 protected:
  ~Monitors() override {
    for (const char* name : {"LONGSPAN_NVML", "STUB_NVML_HOT", "STUB_NVML_FAILS", "STUB_NVML_HANGS"}) unsetenv(name);
  }
  // Until it has read `count` times or says why not.
  void Watch(const std::string& address, size_t count = 1) {
    GpuMonitor monitor(address);
    for (const double begin = WallSeconds(); WallSeconds() - begin < kPatience;) {
      for (const GpuReading& reading : monitor.Take()) readings_.push_back(reading);
      problem_ = monitor.TakeProblem();
      if (readings_.size() >= count || !problem_.empty()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  std::vector<GpuReading> readings_;
  std::string problem_;
};

TEST_F(Monitors, ReadTheGpuAtTheirAddress) {
  setenv("LONGSPAN_NVML", STUB_NVML, 1);
  setenv("STUB_NVML_HOT", "0000:1b:00.0", 1);
  const double begin = WallSeconds();
  Watch("0000:1b:00.0", 2);
  ASSERT_EQ(readings_.size(), 2U) << problem_;
  EXPECT_GE(readings_[0].at, begin);
  EXPECT_GE(readings_[1].at - readings_[0].at, 0.9 * kGpuReadingSeconds);
  const GpuReading hot = readings_[0];
  EXPECT_EQ(hot.sm_clock, 1095);
  EXPECT_EQ(hot.most_sm_clock, 1980);
  EXPECT_EQ(hot.memory_clock, 2619);
  EXPECT_DOUBLE_EQ(hot.power, 310.5);
  EXPECT_DOUBLE_EQ(hot.power_limit, 700);
  EXPECT_EQ(hot.temperature, 91);
  EXPECT_EQ(GpuHeldBy(hot.held), "too hot");
  EXPECT_EQ(hot.corrected, 0U);  // not supported, and no problem
  readings_.clear();
  Watch("0000:2c:00.0");
  ASSERT_EQ(readings_.size(), 1U) << problem_;
  EXPECT_EQ(readings_[0].sm_clock, 1980);
  EXPECT_EQ(GpuHeldBy(readings_[0].held), "");
}

TEST_F(Monitors, SayWhatIsWrongInOneSentence) {
  setenv("LONGSPAN_NVML", STUB_NVML_WITHOUT_POWER, 1);
  Watch("0000:1b:00.0");
  EXPECT_TRUE(readings_.empty());
  EXPECT_EQ(problem_, std::string("clocks, power and temperature of the GPU are not known: ") + STUB_NVML_WITHOUT_POWER
                          " has no nvmlDeviceGetPowerUsage");
  setenv("LONGSPAN_NVML", STUB_NVML, 1);
  for (const char* call : {"nvmlInit_v2", "nvmlDeviceGetClockInfo"}) {
    setenv("STUB_NVML_FAILS", call, 1);
    Watch("0000:1b:00.0");
    EXPECT_TRUE(readings_.empty());
    EXPECT_NE(problem_.find(std::string(call) + ": GPU is lost"), std::string::npos) << problem_;
  }
  setenv("LONGSPAN_NVML", "/none.so", 1);
  Watch("0000:1b:00.0");
  EXPECT_NE(problem_.find("/none.so"), std::string::npos) << problem_;
}

TEST_F(Monitors, AreNotWaitedForWhereTheDriverHangs) {
  setenv("LONGSPAN_NVML", STUB_NVML, 1);
  setenv("STUB_NVML_HANGS", "1", 1);
  const double begin = WallSeconds();
  { const GpuMonitor monitor("0000:1b:00.0"); }
  EXPECT_LT(WallSeconds() - begin, kPatience);
}

TEST_F(Monitors, SayNothingWithoutALibrary) {
  if (dlopen("libnvidia-ml.so.1", RTLD_NOW)) GTEST_SKIP() << "this machine has NVIDIA's library";
  GpuMonitor monitor("0000:1b:00.0");
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(monitor.Take().empty());
    EXPECT_EQ(monitor.TakeProblem(), "");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST(GpuHeldBy, TellsWhatSlowsAGpuThatWorks) {
  EXPECT_EQ(GpuHeldBy(0), "");
  EXPECT_EQ(GpuHeldBy(0x1 | 0x2 | 0x10 | 0x100), "");  // idle, or set so
  EXPECT_EQ(GpuHeldBy(0x4), "power limit");
  EXPECT_EQ(GpuHeldBy(0x8), "hardware slowdown");
  EXPECT_EQ(GpuHeldBy(0x8 | 0x80), "power brake");
  EXPECT_EQ(GpuHeldBy(0x20 | 0x4), "too hot, power limit");
}

}  // namespace
}  // namespace longspan
