#include "launch/plan/planned_step.h"

#include <algorithm>
#include <optional>

#include "launch/train/selections.h"
#include "model/network/session.h"
#include "model/training/micro_step.h"
#include "model/training/optimizer.h"
#include "parallel/comm/local_comm.h"
#include "parallel/comm/transfer_memory.h"
#include "runtime/planned_device.h"

namespace longspan {
namespace {

using Spans = std::map<std::string, SpanTotal>;

// sum += factor * spans
void AddSpans(const Spans& spans, double factor, Spans* sum) {
  for (const auto& [name, span] : spans) {
    SpanTotal& total = (*sum)[name];
    total.count += static_cast<int64_t>(factor * static_cast<double>(span.count));
    total.flops += factor * span.flops;
    total.bytes += factor * span.bytes;
  }
}

Spans TakeSpans() {
  Spans spans = Trace::Get().totals();
  Trace::Get().Reset();
  return spans;
}

Batch EmptyBatch(const Layout& layout, int64_t stride) {
  const auto tokens = static_cast<size_t>(layout.tokens()), sequence = static_cast<size_t>(layout.sequence());
  Batch batch;
  batch.tokens.resize(tokens);
  batch.targets.resize(tokens);
  batch.positions.resize(tokens);
  batch.summary_positions.resize(tokens / stride);
  batch.doc_start.resize(sequence);
  return batch;
}

// With every block of other ranks fetched, or none.
PlannedStep PlanFetching(const RunConfig& config, const PlannedRank& rank, bool all) {
  const auto device = MakePlannedDevice(rank.device, all ? 1 : 0);
  const int64_t cp = config.parallel.cp;
  const Transport transport = config.parallel.transport;
  const auto cp_group = MakeLocalCommunicator(*device, cp, rank.rank % cp, transport);
  const auto world = MakeLocalCommunicator(*device, rank.dp * cp, rank.rank, transport);
  Session session(config.session(), *device, *cp_group, rank.dtype, MakePlannedOps(rank.device));
  Optimizer optimizer({.device = *device,
                       .ops = session.ops(),
                       .compute = session.compute(),
                       .comm = session.comm(),
                       .world = *world,
                       .params = session.model().params(),
                       .config = config.optimizer});
  optimizer.Reserve(session.arena(), session.context().dtype, session.context().gradient_dtype);
  Tensor loss_sum, weights_hash;
  session.arena().Reserve(&loss_sum, MemoryUse::kWorkspace, "loss_sum", DType::kF64, {1});
  session.arena().Reserve(&weights_hash, MemoryUse::kWorkspace, "weights_hash", DType::kI64, {1});
  std::optional<FrozenSelection> frozen;
  if (!config.train.frozen_selection.empty()) frozen.emplace(session, config.model);

  PlannedStep step;
  step.parameters = session.model().params().parameters();
  step.memory = session.arena().Rows();
  step.device_bytes = session.arena().bytes();
  step.host_memory = PlannedHostMemory(session, optimizer, config);

  session.Start(config.train.seed);
  const Batch batch = EmptyBatch(session.layout(), config.model.nsa.stride);
  MicroStep micro_step(session, optimizer, loss_sum);
  const auto run = [&](bool last) {
    session.Load(batch);
    micro_step.Run(last);
    return TakeSpans();
  };
  Trace::Get().Reset();
  const int64_t sequences = config.train.sequences_per_step / rank.dp;
  AddSpans(run(false), static_cast<double>(sequences - 1), &step.spans);
  AddSpans(run(true), 1, &step.spans);
  optimizer.Step(1, config.optimizer.learning_rate, loss_sum);
  AddSpans(TakeSpans(), 1, &step.spans);
  step.scratch_bytes = PlannedScratchBytes(*device);
  if (rank.device == DeviceKind::kGpu && transport != Transport::kStaged) {
    std::vector<int64_t> groups = {rank.dp * cp};
    if (cp != groups[0]) groups.push_back(cp);
    if (transport != Transport::kPeer) {
      step.nccl_bytes = NcclBytes(groups);
    } else {
      for (const int64_t ranks : groups) {
        if (ranks > 1) step.scratch_bytes += PeerStage(static_cast<int>(ranks)).bytes;
      }
    }
  }
  return step;
}

}  // namespace

std::vector<std::pair<std::string, int64_t>> Besides(const PlannedStep& step) {
  return {{"scratch", step.scratch_bytes}, {"NCCL", std::max<int64_t>(0, step.nccl_bytes)}};
}

int64_t BusiestRank(const RunConfig& config, int64_t dp) {
  const int64_t cp = config.parallel.cp;
  const auto device = MakePlannedDevice(DeviceKind::kCpu);
  const auto cp_group = MakeLocalCommunicator(*device, cp);
  Session session(config.session(), *device, *cp_group, DType::kF32, MakePlannedOps(DeviceKind::kCpu));
  const std::vector<Shard> shards = CutShards(session.model().params(), static_cast<int>(dp * cp));
  const auto size = [&](int64_t rank) { return shards[rank].end - shards[rank].begin; };
  const bool contiguous = config.parallel.layout == LayoutKind::kContiguous;
  int64_t busiest = contiguous ? cp - 1 : 0;
  for (int64_t rank = busiest; rank < dp * cp; rank += contiguous ? cp : 1) {
    if (size(rank) > size(busiest)) busiest = rank;
  }
  return busiest;
}

PlannedStep PlanStep(const RunConfig& config, const PlannedRank& rank) {
  PlannedStep step = PlanFetching(config, rank, /*all=*/true);
  if (config.parallel.selected_exchange != SelectedExchange::kFetch) return step;
  Spans spans;
  AddSpans(step.spans, rank.coverage, &spans);
  AddSpans(PlanFetching(config, rank, /*all=*/false).spans, 1 - rank.coverage, &spans);
  for (auto& [name, span] : spans) span.count = step.spans[name].count;
  step.spans = spans;
  return step;
}

double DenseEquivalentFlops(const RunConfig& config, const PlannedStep& step, int64_t ranks) {
  double flops = 0;
  for (const auto& [name, span] : step.spans) {
    if (!name.starts_with("attention.")) flops += span.flops * static_cast<double>(ranks);
  }
  const ModelConfig& model = config.model;
  const auto length = static_cast<double>(config.data.sequence_length);
  const auto key = static_cast<double>(model.key_width), value = static_cast<double>(model.value_width);
  const double pair = 2 * (key + value) + 2 * (3 * key + 2 * value);
  return flops + static_cast<double>(config.train.sequences_per_step * model.layers * model.heads) * length *
                     (length + 1) / 2 * pair;
}

}  // namespace longspan
