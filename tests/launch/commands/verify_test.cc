// How `longspan verify` judges gradients. The program itself is run by cli_test.sh.
#include "launch/commands/verify.h"

#include <gtest/gtest.h>

#include <cmath>
#include <span>

namespace longspan {
namespace {

// Two parameters of 4 elements, every gradient 1.
struct Gradients {
  Gradients() {
    params.Add("first", {4}, {}, false);
    params.Add("second", {2, 2}, {}, true);
    params.Reserve(arena, DType::kF32, DType::kF32);
    arena.Commit(*device);
    params.Bind();
    const auto stream = device->MakeStream("test");
    device->FillBytes(*stream, params.gradients(), 0);
    stream->Synchronize();
    for (const auto& param : params.params()) std::fill_n(param->gradient.As<float>(), 4, 1.0F);
  }
  std::span<const float> flat() const { return {params.gradients().As<float>(), static_cast<size_t>(params.size())}; }

  std::unique_ptr<Device> device = MakeCpuDevice();
  Arena arena;
  ParamTable params;
};

TEST(Verify, RatioIsRmsOfTheErrorOverRms) {
  Gradients reference, found;
  found.params.Find("second").gradient.As<float>()[3] = 1.5F;
  const auto rows = CompareGradients(reference.params, reference.flat(), found.flat());
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].ratio, 0);
  EXPECT_NEAR(rows[1].ratio, 0.25, 1e-12);  // sqrt(0.5^2 / 4) / 1
  EXPECT_EQ(WorstGradient(rows).name, "second");
}

TEST(Verify, NanIsWorseThanAnyNumber) {
  Gradients reference, found;
  found.params.Find("first").gradient.As<float>()[0] = NAN;
  found.params.Find("second").gradient.As<float>()[0] = 1e30F;
  EXPECT_TRUE(std::isnan(WorstGradient(CompareGradients(reference.params, reference.flat(), found.flat())).ratio));
  std::swap(found.params.Find("first").gradient.As<float>()[0], found.params.Find("second").gradient.As<float>()[0]);
  EXPECT_TRUE(std::isnan(WorstGradient(CompareGradients(reference.params, reference.flat(), found.flat())).ratio));
}

}  // namespace
}  // namespace longspan
