// The plan of a step is the step: every span that a real one leaves in the trace, with its count, FLOPs and bytes.
#include "launch/plan/planned_step.h"

#include <gtest/gtest.h>

#include <array>

#include "kernels/matmul/workspace.h"
#include "model/training/micro_step.h"
#include "model/training/optimizer.h"
#include "parallel/comm/mesh.h"
#include "parallel/comm/transfer_memory.h"
#include "tests/support/model_case.h"

namespace longspan {
namespace {

using Spans = std::map<std::string, SpanTotal>;

RunConfig SmallRun(int64_t cp) {
  RunConfig config;
  const SessionConfig small = SmallConfig();
  config.model = small.model;
  config.data.sequence_length = small.sequence_length;
  config.parallel.cp = cp;
  return config;
}

struct Real {
  Spans spans;
  int64_t device_bytes = 0;
  double coverage = 0;
};

// A step of two sequences a replica, as this rank's trace has it.
Real RunStep(const RunConfig& config, const Mesh& mesh) {
  ModelCase real(config.session(), mesh.cp(), DType::kF32);
  Session& session = real.session;
  // A session's memory is planned once: the optimizer and the sum lie elsewhere.
  Optimizer optimizer({.device = session.device(),
                       .ops = session.ops(),
                       .compute = session.compute(),
                       .comm = session.comm(),
                       .world = mesh.world(),
                       .params = session.model().params(),
                       .config = config.optimizer});
  Arena arena;
  optimizer.Reserve(arena, DType::kF32, DType::kF32);
  Tensor loss_sum, weights_hash;
  arena.Reserve(&loss_sum, MemoryUse::kWorkspace, "loss_sum", DType::kF64, {1});
  arena.Reserve(&weights_hash, MemoryUse::kWorkspace, "weights_hash", DType::kI64, {1});
  arena.Commit(session.device());
  optimizer.Start(1);
  MicroStep micro_step(session, optimizer, loss_sum);
  session.compute().Synchronize();
  Trace::Get().Reset();
  for (const bool last : {false, true}) {
    session.Load(real.batch, 1 / static_cast<double>(real.batch.labels));
    micro_step.Run(last);
  }
  optimizer.Step(1, 0.01, loss_sum);
  session.compute().Synchronize();
  session.comm().Synchronize();
  return {Trace::Get().totals(), session.arena().bytes() + arena.bytes(), session.model().coverage()};
}

void ExpectPlanned(RunConfig config, const std::string& what) {
  const auto device = MakeCpuDevice();
  const Mesh mesh(MakeMpiWorld(), 0, config.parallel.cp);
  config.train.sequences_per_step = 2 * mesh.dp_size();
  const Real real = RunStep(config, mesh);
  const PlannedStep plan = PlanStep(config, {.device = DeviceKind::kCpu,
                                             .dtype = DType::kF32,
                                             .dp = mesh.dp_size(),
                                             .rank = mesh.world().rank(),
                                             .coverage = real.coverage});
  SCOPED_TRACE(what);
  EXPECT_NEAR(static_cast<double>(plan.device_bytes) / static_cast<double>(real.device_bytes), 1, 1e-3);
  const bool fetches = config.parallel.selected_exchange == SelectedExchange::kFetch && config.parallel.cp > 1;
  // What FETCH moves depends on what was chosen.
  const auto chosen = [&](const std::string& name) {
    return fetches && (name == "comm.send_receive" || name.starts_with("rows.") || name == "memory.copy");
  };
  for (const auto& [name, found] : real.spans) {
    if (mesh.world().size() == 1 && name.starts_with("comm.")) continue;  // MPI counts what a rank sends itself
    ASSERT_TRUE(plan.spans.contains(name)) << name;
    if (chosen(name)) continue;
    const SpanTotal& planned = plan.spans.at(name);
    EXPECT_EQ(planned.count, found.count) << name;
    EXPECT_DOUBLE_EQ(planned.flops, found.flops) << name;
    EXPECT_DOUBLE_EQ(planned.bytes, found.bytes) << name;
  }
  for (const auto& [name, planned] : plan.spans) {
    EXPECT_TRUE(chosen(name) || real.spans.contains(name)) << name << " is only planned";
  }
  if (!fetches) return;
  // What a rank receives in the backward others have chosen: of all ranks the plan has it.
  std::array bytes = {plan.spans.at("comm.send_receive").bytes, real.spans.at("comm.send_receive").bytes};
  mesh.host_world().AllReduce(*device->MakeStream("test"), HostView(bytes.data(), {2}), ReduceOp::kSum);
  EXPECT_NEAR(bytes[1] / bytes[0], 1, 1e-9);
}

class PlannedStepTest : public testing::Test {
 protected:
  const int ranks_ = MakeMpiWorld()->size();
};

TEST_F(PlannedStepTest, IsTheStep) {
  for (int64_t cp = 1; cp <= ranks_; cp *= 2) {
    RunConfig config = SmallRun(cp);
    ExpectPlanned(config, fmt::format("cp {}", cp));
    config.parallel.layout = LayoutKind::kContiguous;
    ExpectPlanned(config, fmt::format("cp {}, contiguous", cp));
    config.model.nsa.kv_branches = KvBranches::kShared;
    config.model.nsa.phi = Phi::kMean;
    ExpectPlanned(config, fmt::format("cp {}, shared", cp));
    config.model.attention = {AttentionKind::kFull, AttentionKind::kWindow};
    ExpectPlanned(config, fmt::format("cp {}, other attention", cp));
  }
}

TEST_F(PlannedStepTest, KnowsRecomputationInEveryLayoutAndExchange) {
  for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    for (const bool offload : {false, true}) {
      if (recompute == Recompute::kNone && offload) continue;
      for (const LayoutKind layout : {LayoutKind::kHeadTail, LayoutKind::kContiguous}) {
        for (const SelectedExchange exchange : {SelectedExchange::kGather, SelectedExchange::kFetch}) {
          RunConfig config = SmallRun(ranks_);
          config.train.keep = {recompute, offload};
          config.parallel.layout = layout;
          config.parallel.selected_exchange = exchange;
          ExpectPlanned(config,
                        fmt::format("recompute {}, offload {}, layout {}, exchange {}", static_cast<int>(recompute),
                                    offload, static_cast<int>(layout), static_cast<int>(exchange)));
        }
      }
    }
  }
}

// Of a GPU what comes on top, too; a planned CPU has nothing of it.
TEST(PlannedGpu, ScratchAndNccl) {
  const auto plan = [](int64_t cp, int64_t dp, DeviceKind device, Phi phi) {
    RunConfig config = SmallRun(cp);
    config.model.nsa.phi = phi;
    config.train.sequences_per_step = dp;
    const DType dtype = device == DeviceKind::kGpu ? DType::kBf16 : DType::kF32;
    return PlanStep(config, {.device = device, .dtype = dtype, .dp = dp});
  };
  const PlannedStep one = plan(1, 1, DeviceKind::kGpu, Phi::kMean);
  const ModelConfig model = SmallRun(1).model;
  const int64_t tokens = SmallRun(1).data.sequence_length;
  // The products' and the loss's workspace; logits in F32 and their gradient in BF16, all at once; delta and lse of
  // each query and head.
  EXPECT_EQ(one.scratch_bytes, 2 * kMatMulWorkspaceBytes + tokens * model.vocab * (4 + 2) + tokens * model.heads * 8);
  EXPECT_EQ(one.nccl_bytes, 0);
  EXPECT_EQ(plan(1, 1, DeviceKind::kGpu, Phi::kMlp).scratch_bytes - one.scratch_bytes, kMatMulWorkspaceBytes);

  // A gradient's part of each of two ranks.
  const PlannedStep two = plan(2, 1, DeviceKind::kGpu, Phi::kMean);
  EXPECT_GT(two.scratch_bytes, one.scratch_bytes / 2 + kMatMulWorkspaceBytes);
  EXPECT_EQ(two.nccl_bytes, NcclBytes({2}));
  EXPECT_EQ(plan(1, 2, DeviceKind::kGpu, Phi::kMean).nccl_bytes, NcclBytes({2, 1}));
  EXPECT_EQ(plan(2, 2, DeviceKind::kGpu, Phi::kMean).nccl_bytes, NcclBytes({4, 2}));

  RunConfig other = SmallRun(2);
  other.model.nsa.phi = Phi::kMean;
  other.parallel.transport = Transport::kStaged;
  const PlannedStep over_host = PlanStep(other, {.device = DeviceKind::kGpu, .dtype = DType::kBf16});
  EXPECT_EQ(over_host.nccl_bytes, 0);
  EXPECT_LT(over_host.scratch_bytes, two.scratch_bytes);

  other.parallel.transport = Transport::kPeer;
  const PlannedStep peer = PlanStep(other, {.device = DeviceKind::kGpu, .dtype = DType::kBf16});
  EXPECT_EQ(peer.nccl_bytes, 0);
  EXPECT_EQ(peer.scratch_bytes, two.scratch_bytes + PeerStage(2).bytes);

  const PlannedStep cpu = plan(2, 1, DeviceKind::kCpu, Phi::kMean);
  EXPECT_EQ(cpu.scratch_bytes, 0);
  EXPECT_EQ(cpu.nccl_bytes, 0);
}

TEST_F(PlannedStepTest, FetchesWhatIsCovered) {
  RunConfig config = SmallRun(ranks_);
  config.parallel.selected_exchange = SelectedExchange::kFetch;
  const auto received = [&](double coverage) {
    return PlanStep(config, {.device = DeviceKind::kCpu, .dtype = DType::kF32, .coverage = coverage})
        .spans["comm.send_receive"]
        .bytes;
  };
  EXPECT_DOUBLE_EQ(received(0.5), (received(0) + received(1)) / 2);
  if (ranks_ > 1) {
    EXPECT_LT(received(0), received(1));
  }
}

// No machine could hold it; the plan takes no memory.
TEST(PlannedStep, OfManyRanks) {
  RunConfig config = SmallRun(64);
  config.model.layers = 3;
  config.model.nsa = {};
  config.data.sequence_length = int64_t{1} << 24;
  config.train.sequences_per_step = 64;
  const PlannedStep step = PlanStep(config, {.dp = 64, .rank = BusiestRank(config, 64)});
  EXPECT_GT(step.device_bytes, int64_t{1} << 30);
  EXPECT_GT(step.spans.at("comm.all_gather").bytes, 0);
  EXPECT_GT(DenseEquivalentFlops(config, step, 64 * 64), 0);
}

TEST(PlannedStep, BusiestRankHoldsMostOfTheState) {
  RunConfig config = SmallRun(2);
  config.train.sequences_per_step = 4;
  const auto state = [&](int64_t rank) {
    int64_t bytes = 0;
    for (const MemoryRow& row : PlanStep(config, {.dp = 4, .rank = rank}).memory) {
      if (row.use == MemoryUse::kOptimizer) bytes += row.bytes;
    }
    return bytes;
  };
  for (const LayoutKind layout : {LayoutKind::kHeadTail, LayoutKind::kContiguous}) {
    config.parallel.layout = layout;
    const int64_t busiest = BusiestRank(config, 4);
    for (int64_t rank = 0; rank < 8; ++rank) {
      if (layout == LayoutKind::kHeadTail || rank % 2 == 1) {
        EXPECT_LE(state(rank), state(busiest)) << rank;
      }
    }
    if (layout == LayoutKind::kContiguous) {
      EXPECT_EQ(busiest % 2, 1);
    }
  }
}

// By hand: two layers of four heads, 192 tokens, K = 6 and V = 5.
TEST(PlannedStep, DenseEquivalent) {
  RunConfig config = SmallRun(1);
  config.train.sequences_per_step = 1;
  PlannedStep step;
  step.spans["dense.matmul"].flops = 1000;
  step.spans["attention.window"].flops = 77;
  const double pairs = 192.0 * 193 / 2;
  EXPECT_DOUBLE_EQ(DenseEquivalentFlops(config, step, 1), 1000 + 2 * 4 * pairs * (2 * 11 + 2 * 28));
}

}  // namespace
}  // namespace longspan
