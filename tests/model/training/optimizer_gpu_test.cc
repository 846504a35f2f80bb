// The sharded optimizer on GPUs: BF16 weights are their F32 masters rounded, and the masters make the CPU's steps.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/host_copy.h"
#include "launch/job/binding.h"
#include "model/training/optimizer.h"
#include "parallel/comm/local_comm.h"

namespace longspan {
namespace {

// A gradient of small integers over 64: sums of any order are exact.
float Value(int rank, int step, int64_t i) { return static_cast<float>((i * 7 + rank * 13 + step * 5) % 31 - 15) / 64; }

// Weights after three steps, on a device; rank r of `world` holds the r-th part of the gradient, `parts` in all.
std::vector<float> StepThrice(Device& device, Communicator& world, DType dtype, int parts) {
  Ops ops = MakeOps(device.kind());
  const auto compute = device.MakeStream("compute"), comm = device.MakeStream("comm");
  ParamTable params;
  params.Add("a", {7, 5}, {0, 1}, true);
  params.Add("b", {3}, {1, 0}, false);
  params.Add("c", {40, 3}, {0, 0.5}, true);
  params.Add("d", {11}, {0, 0}, false);
  OptimizerConfig config;
  config.clip_norm = 0.5;
  Optimizer optimizer({.device = device,
                       .ops = ops,
                       .compute = *compute,
                       .comm = *comm,
                       .world = world,
                       .params = params,
                       .config = config});
  Arena arena;
  params.Reserve(arena, dtype, DType::kF32);
  optimizer.Reserve(arena, dtype, DType::kF32);
  arena.Commit(device);
  params.Bind();
  params.Initialise(device, ops, *compute, 3);
  optimizer.Start(3);
  for (int step = 1; step <= 3; ++step) {
    std::vector<float> gradients(params.size(), 0);
    for (const auto& param : params.params()) {
      for (int64_t i = param->offset; i < param->offset + param->size(); ++i) {
        for (int part = world.rank(); part < parts; part += world.size()) gradients[i] += Value(part, step, i);
      }
    }
    HostCopy(device, *compute, HostView(gradients.data(), {params.size()}), params.gradients());
    optimizer.Reduce(0, params.size());
    optimizer.FinishReduce();
    optimizer.Step(step, 0.01);
  }
  return HostValues<float>(device, *compute, params.weights());
}

TEST(OptimizerGpu, MastersMakeTheStepsOfTheCpu) {
  if (GpuCount() == 0) GTEST_SKIP() << "no GPU";
  const Binding binding = BindRank(DeviceKind::kGpu, true);
  const auto world = MakeDeviceCommunicator(MakeMpiWorld(), *binding.device, Transport::kAuto);
  const auto cpu_device = MakeCpuDevice();
  const auto cpu = StepThrice(*cpu_device, *MakeLocalCommunicator(*cpu_device), DType::kF32, world->size());
  const auto wide = StepThrice(*binding.device, *world, DType::kF32, world->size());
  const auto narrow = StepThrice(*binding.device, *world, DType::kBf16, world->size());
  ASSERT_EQ(wide.size(), cpu.size());
  for (size_t i = 0; i < cpu.size(); ++i) {
    EXPECT_NEAR(wide[i], cpu[i], 1e-6) << i;
    // Half a unit in the last place of eight bits.
    EXPECT_NEAR(narrow[i], wide[i], std::abs(wide[i]) * 0x1p-8 + 1e-6) << i;
  }
}

}  // namespace
}  // namespace longspan
