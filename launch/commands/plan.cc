#include "launch/commands/plan.h"

#include <fmt/format.h>

#include "launch/job/machine.h"
#include "model/network/session.h"
#include "model/training/optimizer.h"
#include "parallel/layout.h"
#include "runtime/error.h"
#include "runtime/memory.h"

namespace longspan {
namespace {

// A rank of a job that is only planned: it knows its place and transfers nothing.
class PlannedRank : public Communicator {
 public:
  explicit PlannedRank(int64_t size) : size_(static_cast<int>(size)) {}
  int rank() const override { return 0; }
  int size() const override { return size_; }
  void AllReduce(Stream&, const Tensor&, ReduceOp) override { Refuse(); }
  void AllGather(Stream&, const Tensor&, const Tensor&, const std::vector<int64_t>&) override { Refuse(); }
  void ReduceScatter(Stream&, const Tensor&, const Tensor&, const std::vector<int64_t>&) override { Refuse(); }
  void AllToAll(Stream&, const Tensor&, const std::vector<int64_t>&, const Tensor&,
                const std::vector<int64_t>&) override {
    Refuse();
  }
  void SendReceive(Stream&, const std::vector<Transfer>&) override { Refuse(); }
  void Broadcast(Stream&, const Tensor&, int) override { Refuse(); }
  void Barrier() override { Refuse(); }
  std::unique_ptr<Communicator> Split(int, int) override { Refuse(); }

 private:
  [[noreturn]] static void Refuse() { Fail(ExitCode::kRankFailed, "planning: expected no transfer, found one"); }
  int size_;
};

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
  PlannedRank cp_group(cp), all_ranks(dp * cp);
  // A plan needs no GPU: nothing is allocated.
  const Machine machine = ChooseMachine(config.runtime);
  const auto host = MakeCpuDevice();
  Session session(config.session(), *host, cp_group, machine.dtype);
  Optimizer optimizer(session.device(), session.ops(), session.compute(), session.comm(), all_ranks,
                      session.model().params(), config.optimizer);
  optimizer.Reserve(session.arena(), session.context().dtype, session.context().gradient_dtype);
  return fmt::format("{}\n{} parameters\n\nMemory of rank 0 on {}, {}:\n{}", DescribeRanks(config, dp),
                     session.model().params().parameters(), DeviceName(machine.device), DTypeName(machine.dtype),
                     MemoryTable(session.arena().Rows(), Available(machine.device), session.model().offloaded_bytes()));
}

}  // namespace longspan
