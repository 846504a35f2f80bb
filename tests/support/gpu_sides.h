// One piece of test code run on both sides: the CPU in F64 and GPU 0, from the same values (as the GPU's type rounds
// them). Twice on the GPU, whose bits must agree.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/compare.h"
#include "tests/support/gpu_values.h"

namespace longspan::test {

using Named = std::vector<std::pair<std::string, std::vector<double>>>;

class Side {
 public:
  Side(const Machine& machine, const Ops& ops, DType rounding)
      : machine_(machine), sums_(machine), ops_(ops), rounding_(rounding) {
    if (gpu()) sums_.dtype = DType::kF32;
  }
  bool gpu() const { return machine_.device->kind() == DeviceKind::kGpu; }
  Device& device() const { return *machine_.device; }
  DType dtype() const { return machine_.dtype; }
  Stream& stream() const { return *machine_.stream; }
  DenseOps& dense() const { return *ops_.dense; }
  RowOps& rows() const { return *ops_.rows; }
  TrainOps& train() const { return *ops_.train; }

  // Normal values in the type of activations.
  OwnedTensor In(uint64_t seed, const Shape& shape, double scale = 1) const {
    return Put(Rounded(Normal(seed, shape, scale), rounding_), shape);
  }
  OwnedTensor Put(const std::vector<double>& values, const Shape& shape) const {
    return gpu() ? UploadValues(machine_, "in", values, shape) : Upload(machine_, "in", values, shape);
  }
  // The same in the type of gradients that accumulate.
  OwnedTensor InSum(uint64_t seed, const Shape& shape, double scale = 1) const {
    return PutSum(Rounded(Normal(seed, shape, scale), DType::kF32), shape);
  }
  OwnedTensor PutSum(const std::vector<double>& values, const Shape& shape) const {
    return Upload(sums_, "in", values, shape);
  }
  OwnedTensor PutF64(const std::vector<double>& values, const Shape& shape) const {
    return UploadF64(machine_, "in", values, shape);
  }
  OwnedTensor PutInts(const std::vector<int32_t>& values) const {
    return Upload(machine_, "in", values, {static_cast<int64_t>(values.size())});
  }
  // Unwritten: NaN.
  OwnedTensor Out(const Shape& shape) const { return OwnedTensor(machine_, "out", machine_.dtype, shape); }
  OwnedTensor OutSum(const Shape& shape) const { return OwnedTensor(sums_, "out", sums_.dtype, shape); }
  std::vector<double> Read(const OwnedTensor& tensor) const { return DownloadValues(machine_, tensor.view()); }

  static std::vector<double> Normal(uint64_t seed, const Shape& shape, double scale) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal(0, scale);
    std::vector<double> values(shape.count());
    for (double& x : values) x = normal(random);
    return values;
  }

 private:
  Machine machine_, sums_;
  const Ops& ops_;
  DType rounding_;
};

inline Side GpuSide(DType dtype) {
  static const Ops ops = MakeGpuOps();
  return Side(GpuMachine(dtype), ops, dtype);
}

inline Side CpuSide(DType rounding) {
  const Machine machine = CpuMachine(DType::kF64);
  return Side(machine, *machine.ops, rounding);
}

// `work` returns its results by name; they must be alike within RMS 0.005 (BF16) or 1e-5 (F32).
inline void ExpectSameOnBothSides(DType dtype, const std::function<Named(const Side&)>& work) {
  const double tolerance = dtype == DType::kBf16 ? 0.005 : 1e-5;
  const Named expected = work(CpuSide(dtype)), found = work(GpuSide(dtype)), again = work(GpuSide(dtype));
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const std::string& name = expected[i].first;
    EXPECT_TRUE(RmsClose(name, found[i].second, expected[i].second, tolerance)) << DTypeName(dtype);
    EXPECT_TRUE(BitEqual(name + " again", again[i].second, found[i].second)) << DTypeName(dtype);
  }
}

inline constexpr DType kGpuTypes[] = {DType::kF32, DType::kBf16};

// `work` throws an Error of this code whose message holds `part`.
inline void ExpectGpuError(ExitCode code, const std::string& part, const std::function<void()>& work) {
  try {
    work();
    ADD_FAILURE() << "expected an error about " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

// main of a test that needs a GPU: 77 says skipped.
inline int RunGpuTests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (GpuCount() == 0) {
    std::puts("skipped: no GPU");
    return 77;
  }
  return RUN_ALL_TESTS();
}

}  // namespace longspan::test
