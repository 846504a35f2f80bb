// A model that is left to choose how selected rows travel may be switched between passes: no bit tells.
#include <gtest/gtest.h>

#include "tests/support/model_case.h"

namespace longspan {
namespace {

using Exchanges = std::vector<SelectedExchange>;

// Gradients of three passes, each by its exchange; none: as the configuration says.
std::vector<float> Gradients(SessionConfig config, SelectedExchange configured, const Exchanges& exchanges,
                             Communicator& cp) {
  config.parallel.selected_exchange = configured;
  ModelCase model(config, cp, DType::kF32);
  Transformer& network = model.session.model();
  std::vector<float> all;
  for (int pass = 0; pass < 3; ++pass) {
    if (!exchanges.empty()) {
      model.session.compute().Synchronize();
      network.SetExchange(exchanges[pass]);
    }
    model.ForwardBackward();
    const bool fetches = !exchanges.empty() && exchanges[pass] == SelectedExchange::kFetch;
    EXPECT_EQ(network.fetches(), fetches);
    if (fetches) {
      EXPECT_LT(network.coverage(), 1);
    } else {
      EXPECT_EQ(network.coverage(), 1);
    }
    const auto gradients = model.session.ToHost<float>(network.params().gradients());
    all.insert(all.end(), gradients.begin(), gradients.end());
  }
  return all;
}

TEST(SwitchedExchange, TheSameBits) {
  const auto world = MakeMpiWorld();
  constexpr auto kGather = SelectedExchange::kGather, kFetch = SelectedExchange::kFetch;
  for (const auto branches : {KvBranches::kSeparate, KvBranches::kShared}) {
    for (const auto recompute : {Recompute::kNone, Recompute::kSelective}) {
      SetCpuStreamMode(CpuStreamMode::kReorder, 3);
      SessionConfig config = SmallConfig();
      config.sequence_length *= 3;
      config.model.nsa.kv_branches = branches;
      config.keep.recompute = recompute;
      const std::vector<float> gathered = Gradients(config, kGather, {}, *world);
      EXPECT_TRUE(Gradients(config, SelectedExchange::kAuto, {}, *world) == gathered);
      EXPECT_TRUE(Gradients(config, SelectedExchange::kAuto, {kGather, kFetch, kGather}, *world) == gathered);
      EXPECT_TRUE(Gradients(config, SelectedExchange::kAuto, {kFetch, kGather, kFetch}, *world) == gathered);
      SetCpuStreamMode(CpuStreamMode::kImmediate);
    }
  }
}

}  // namespace
}  // namespace longspan
