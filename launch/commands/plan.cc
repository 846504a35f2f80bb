#include "launch/commands/plan.h"

#include <fmt/format.h>

#include <optional>

#include "launch/job/machine.h"
#include "launch/train/selections.h"
#include "model/network/session.h"
#include "model/training/optimizer.h"
#include "parallel/comm/local_comm.h"
#include "parallel/layout.h"
#include "runtime/error.h"
#include "runtime/memory.h"

namespace longspan {
namespace {

std::string DescribeRanks(const RunConfig& config, int64_t dp) {
  const int64_t cp = config.parallel.cp;
  const Layout layout(config.parallel.layout, config.data.sequence_length, static_cast<int>(cp),
                      config.model.nsa.select_block);
  std::string text = fmt::format(
      "Ranks: {} = dp {} x cp {}, {}. A sequence of {} tokens in chunks of {}, {} tokens a rank\n"
      "A step: {} sequences, {} after another on each replica\n\n  rank    dp    cp  tokens\n",
      dp * cp, dp, cp, config.parallel.layout == LayoutKind::kHeadTail ? "HEAD_TAIL" : "CONTIGUOUS", layout.sequence(),
      layout.chunk(), layout.tokens(), config.train.sequences_per_step, config.train.sequences_per_step / dp);
  for (int64_t rank = 0; rank < dp * cp; ++rank) {
    std::string tokens;
    for (const Segment& segment : layout.segments(static_cast<int>(rank % cp))) {
      tokens += fmt::format("{}{}..{}", tokens.empty() ? "" : ", ", segment.begin, segment.begin + segment.length - 1);
    }
    text += fmt::format("{:>6}{:>6}{:>6}  {}\n", rank, rank / cp, rank % cp, tokens);
  }
  return text;
}

// -1: a GPU that this machine does not have.
int64_t Available(DeviceKind kind) {
  if (kind == DeviceKind::kCpu) return AvailableHostBytes();
  return GpuCount() > 0 ? MakeGpuDevice(0)->AvailableBytes() : -1;
}

}  // namespace

std::string DescribeRun(const RunConfig& config, int64_t world) {
  const int64_t cp = config.parallel.cp;
  int64_t dp = config.parallel.dp;
  if (dp == 0) dp = world > 0 ? world / cp : 1;
  // A plan needs no GPU: nothing is allocated.
  const Machine machine = ChooseMachine(config.runtime);
  const auto host = MakeCpuDevice();
  const auto cp_group = MakeLocalCommunicator(*host, cp), all_ranks = MakeLocalCommunicator(*host, dp * cp);
  Session session(config.session(), *host, *cp_group, machine.dtype);
  Optimizer optimizer({.device = session.device(),
                       .ops = session.ops(),
                       .compute = session.compute(),
                       .comm = session.comm(),
                       .world = *all_ranks,
                       .params = session.model().params(),
                       .config = config.optimizer});
  optimizer.Reserve(session.arena(), session.context().dtype, session.context().gradient_dtype);
  std::optional<FrozenSelection> frozen;
  if (!config.train.frozen_selection.empty()) frozen.emplace(session, config.model);
  return fmt::format("{}\n{} parameters\n\nMemory of rank 0 on {}, {}:\n{}", DescribeRanks(config, dp),
                     session.model().params().parameters(), DeviceName(machine.device), DTypeName(machine.dtype),
                     MemoryTable(session.arena().Rows(), Available(machine.device), session.model().offloaded_bytes()));
}

}  // namespace longspan
