// The sharded optimizer: P ranks that each hold a part of the gradient make the same step as one rank that holds all.
#include "model/training/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "parallel/comm/local_comm.h"

namespace longspan {
namespace {

struct Machine {
  std::unique_ptr<Device> device = MakeCpuDevice();
  Ops ops = MakeCpuOps();
  std::unique_ptr<Stream> compute = device->MakeStream("compute");
  std::unique_ptr<Stream> comm = device->MakeStream("comm");
};

void AddParams(ParamTable* params) {
  params->Add("a", {7, 5}, {0, 1}, true);
  params->Add("b", {3}, {1, 0}, false);
  params->Add("c", {40, 3}, {0, 0.5}, true);
  params->Add("d", {11}, {0, 0}, false);
  params->Add("e", {2, 2}, {0, 1}, true);
}

// A gradient of small integers over 64: sums of any order are exact.
float Value(int rank, int step, int64_t i) { return static_cast<float>((i * 7 + rank * 13 + step * 5) % 31 - 15) / 64; }

// Weights after three steps; `ranks` partial gradients are summed by `world`, or all held by one rank.
std::vector<float> StepThrice(Communicator& world, int ranks, double clip, double* norm) {
  Machine m;
  ParamTable params;
  AddParams(&params);
  OptimizerConfig config;
  config.clip_norm = clip;
  Optimizer optimizer({.device = *m.device,
                       .ops = m.ops,
                       .compute = *m.compute,
                       .comm = *m.comm,
                       .world = world,
                       .params = params,
                       .config = config});
  Arena arena;
  params.Reserve(arena, DType::kF32, DType::kF32);
  optimizer.Reserve(arena, DType::kF32, DType::kF32);
  arena.Commit(*m.device);
  params.Bind();
  params.Initialise(*m.device, m.ops, *m.compute, 3);
  optimizer.Start(3);
  m.compute->Synchronize();
  for (int step = 1; step <= 3; ++step) {
    for (const auto& param : params.params()) {
      for (int64_t i = 0; i < param->size(); ++i) {
        float sum = 0;
        if (world.size() > 1) {
          sum = Value(world.rank(), step, i + param->offset);
        } else {
          for (int r = 0; r < ranks; ++r) sum += Value(r, step, i + param->offset);
        }
        param->gradient.As<float>()[i] = sum;
      }
    }
    // In one part and in several, whose ends lie within shards and tensors: the same.
    const int64_t cut = 16 * (step - 1);
    optimizer.Reduce(cut, params.size());
    if (cut > 0) optimizer.Reduce(0, cut);
    optimizer.FinishReduce();
    optimizer.Step(step, 0.01);
    m.compute->Synchronize();
    for (int64_t i = 0; i < params.size(); ++i) EXPECT_EQ(params.gradients().As<float>()[i], 0);
  }
  *norm = std::sqrt(optimizer.sums().As<double>()[0]);
  const float* weights = params.weights().As<float>();
  return {weights, weights + params.size()};
}

TEST(Optimizer, ShardedEqualsWhole) {
  const auto world = MakeMpiWorld();
  const auto cpu = MakeCpuDevice();
  const auto self = MakeLocalCommunicator(*cpu);
  for (const bool reorder : {false, true}) {
    for (const double clip : {0.0, 0.5}) {
      double norm = 0, whole_norm = 0;
      const auto whole = StepThrice(*self, world->size(), clip, &whole_norm);
      if (reorder) SetCpuStreamMode(CpuStreamMode::kReorder, 2);
      const auto sharded = StepThrice(*world, world->size(), clip, &norm);
      SetCpuStreamMode(CpuStreamMode::kImmediate);
      EXPECT_NEAR(norm, whole_norm, 1e-12 * whole_norm);
      ASSERT_EQ(whole.size(), sharded.size());
      for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(sharded[i], whole[i], 1e-6) << i;
    }
  }
}

// A gradient or loss that is not finite on one rank, or above its limit over all: no rank's weights or moments change,
// and the step after it is what it would have been.
TEST(Optimizer, UpdatesAreSkippedOnAllRanksAlike) {
  const auto world = MakeMpiWorld();
  enum class Bad { kNothing, kGradient, kInfinity, kLoss, kNormLimit, kLossLimit };
  const auto run = [&](Bad bad, int bad_rank) {
    Machine m;
    ParamTable params;
    AddParams(&params);
    Optimizer optimizer({.device = *m.device,
                         .ops = m.ops,
                         .compute = *m.compute,
                         .comm = *m.comm,
                         .world = *world,
                         .params = params,
                         .config = {}});
    Arena arena;
    Tensor loss;
    params.Reserve(arena, DType::kF32, DType::kF32);
    optimizer.Reserve(arena, DType::kF32, DType::kF32);
    arena.Reserve(&loss, MemoryUse::kWorkspace, "loss", DType::kF64, {1});
    arena.Commit(*m.device);
    params.Bind();
    params.Initialise(*m.device, m.ops, *m.compute, 3);
    optimizer.Start(3);
    m.compute->Synchronize();
    int64_t updates = 0;
    for (int step = 1; step <= 3; ++step) {
      if (step == 2 && bad == Bad::kNothing) continue;
      for (const auto& param : params.params()) {
        for (int64_t i = 0; i < param->size(); ++i) {
          param->gradient.As<float>()[i] = Value(world->rank(), step, i + param->offset);
        }
      }
      *loss.As<double>() = step;
      UpdateLimits limits{.norm = 1e3, .loss = 10.0 * world->size()};
      const bool here = world->rank() == bad_rank;
      if (step == 2) {
        float& gradient = params.params()[2]->gradient.As<float>()[17];
        if (here && bad == Bad::kGradient) gradient = NAN;
        if (here && bad == Bad::kInfinity) gradient = -INFINITY;
        if (here && bad == Bad::kLoss) *loss.As<double>() = INFINITY;
        if (bad == Bad::kNormLimit) limits.norm = 1e-3;
        if (bad == Bad::kLossLimit) limits.loss = 1.9 * world->size();
      }
      const std::vector<float> before(params.weights().As<float>(), params.weights().As<float>() + params.size());
      optimizer.Reduce(0, params.size());
      optimizer.FinishReduce();
      optimizer.Step(updates + 1, 0.01, loss, limits);
      m.compute->Synchronize();
      const double* const sums = optimizer.sums().As<double>();
      EXPECT_EQ(std::isnan(sums[2]), step == 2);
      if (step == 2) {
        for (int64_t i = 0; i < params.size(); ++i) EXPECT_EQ(params.weights().As<float>()[i], before[i]) << i;
      } else {
        ++updates;
        EXPECT_EQ(sums[1], step * world->size());
      }
      for (int64_t i = 0; i < params.size(); ++i) EXPECT_EQ(params.gradients().As<float>()[i], 0);
    }
    const float* weights = params.weights().As<float>();
    return std::vector<float>(weights, weights + params.size());
  };
  const std::vector<float> expected = run(Bad::kNothing, 0);
  for (const Bad bad : {Bad::kGradient, Bad::kInfinity, Bad::kLoss, Bad::kNormLimit, Bad::kLossLimit}) {
    for (int rank = 0; rank < world->size(); ++rank) {
      EXPECT_EQ(run(bad, rank), expected) << "case " << static_cast<int>(bad) << " on rank " << rank;
    }
  }
}

TEST(Optimizer, ShardsAreRunsOfWholeTensors) {
  ParamTable params;
  AddParams(&params);
  for (int ranks = 1; ranks <= 9; ++ranks) {
    const auto shards = CutShards(params, ranks);
    EXPECT_EQ(shards.front().begin, 0);
    EXPECT_EQ(shards.back().end, params.size());
    EXPECT_EQ(shards.back().last, 5);
    for (int r = 1; r < ranks; ++r) {
      EXPECT_EQ(shards[r].begin, shards[r - 1].end);
      EXPECT_EQ(shards[r].first, shards[r - 1].last);
    }
  }
}

TEST(ParamTable, InitialisationDependsOnSeedAndNameAlone) {
  Machine m;
  const auto draw = [&](bool extra, uint64_t seed) {
    ParamTable params;
    if (extra) params.Add("first", {3, 3}, {0, 1}, true);
    Param& param = params.Add("a", {100, 10}, {0, 2}, true);
    Arena arena;
    params.Reserve(arena, DType::kF32, DType::kF32);
    arena.Commit(*m.device);
    params.Bind();
    params.Initialise(*m.device, m.ops, *m.compute, seed);
    const float* weights = param.weight.As<float>();
    return std::vector<float>(weights, weights + param.size());
  };
  const auto a = draw(false, 1);
  EXPECT_EQ(a, draw(true, 1));
  EXPECT_NE(a, draw(false, 2));
  double sum = 0, squares = 0;
  for (float x : a) {
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / 1000, 0, 0.2);
  EXPECT_NEAR(std::sqrt(squares / 1000), 2, 0.15);
}

}  // namespace
}  // namespace longspan
