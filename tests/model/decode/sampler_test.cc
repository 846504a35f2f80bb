// What is drawn from logits.
#include "model/decode/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "runtime/error.h"

namespace longspan {
namespace {

const std::vector<float> kLogits = {std::log(0.1f), std::log(0.4f), std::log(0.1f), std::log(0.4f)};

// Shares of 20,000 draws.
std::map<int32_t, double> Shares(const Sampling& sampling) {
  constexpr int kDraws = 20000;
  Sampler sampler(sampling, 0);
  std::map<int32_t, double> shares;
  for (int i = 0; i < kDraws; ++i) shares[sampler.Next(kLogits)] += 1.0 / kDraws;
  return shares;
}

TEST(Sampler, TemperatureZeroTakesTheLikeliestAndOfSeveralTheLowest) {
  EXPECT_EQ(Shares({.temperature = 0}), (std::map<int32_t, double>{{1, Shares({.temperature = 0})[1]}}));
}

TEST(Sampler, DrawsByProbability) {
  const auto shares = Shares({});
  EXPECT_NEAR(shares.at(0), 0.1, 0.01);
  EXPECT_NEAR(shares.at(1), 0.4, 0.015);
  const auto cold = Shares({.temperature = 0.5});  // squares: 0.01 and 0.16 of 0.34
  EXPECT_NEAR(cold.at(0), 0.01 / 0.34, 0.01);
  EXPECT_NEAR(cold.at(3), 0.16 / 0.34, 0.015);
}

TEST(Sampler, TopKAndTopPLeaveTheRestOut) {
  EXPECT_EQ(Shares({.top_k = 1}).size(), 1);
  EXPECT_EQ(Shares({.top_k = 3}).size(), 3);
  EXPECT_EQ(Shares({.top_k = 9}).size(), 4);
  EXPECT_EQ(Shares({.top_p = 0.3}).size(), 1);
  EXPECT_EQ(Shares({.top_p = 0.7}).size(), 2);
  EXPECT_EQ(Shares({.top_p = 0.85}).size(), 3);
  EXPECT_NEAR(Shares({.top_k = 2})[3], 0.5, 0.015);
}

TEST(Sampler, DependsOnSeedAndNumberAlone) {
  const auto draw = [](uint64_t seed, uint64_t number) {
    Sampler sampler({.seed = seed}, number);
    std::vector<int32_t> drawn;
    for (int i = 0; i < 50; ++i) drawn.push_back(sampler.Next(kLogits));
    return drawn;
  };
  EXPECT_EQ(draw(1, 0), draw(1, 0));
  EXPECT_NE(draw(1, 0), draw(1, 1));
  EXPECT_NE(draw(1, 0), draw(2, 0));
}

TEST(Sampler, RefusesWhatIsNotFinite) {
  Sampler sampler({}, 0);
  EXPECT_THROW(sampler.Next(std::vector<float>{0, std::numeric_limits<float>::quiet_NaN()}), Error);
}

}  // namespace
}  // namespace longspan
