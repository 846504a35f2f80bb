#include "launch/commands/dry_run.h"

#include <fmt/format.h>

#include <cstdio>
#include <optional>

#include "launch/data/sequence_source.h"
#include "launch/job/machine.h"
#include "launch/plan/ranks_text.h"
#include "launch/train/memory_fit.h"
#include "launch/train/progress.h"
#include "launch/train/selections.h"
#include "model/network/session.h"
#include "model/training/optimizer.h"
#include "parallel/comm/local_comm.h"
#include "parallel/layout.h"
#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/memory.h"

namespace longspan {
namespace {

// -1: a GPU that this machine does not have.
int64_t Available(DeviceKind kind) {
  if (kind == DeviceKind::kCpu) return AvailableHostBytes();
  return GpuCount() > 0 ? MakeGpuDevice(0)->AvailableBytes() : -1;
}

// `rank`: what one rank takes of its device.
void RequirePlanFits(const RunConfig& config, DeviceKind device, int64_t ranks, int64_t rank, int64_t device_memory) {
  const std::string cures = SmallerMemory(config, device);
  if (device_memory > 0) {
    if (rank <= device_memory) return;
    Fail(ExitCode::kConfig, "--device-memory {}: rank 0 takes {}; {}", FormatBytes(device_memory), FormatBytes(rank),
         cures);
  }
  const int64_t available = config.runtime.device == RuntimeDevice::kAuto ? -1 : Available(device);
  const bool shared = device == DeviceKind::kCpu;  // the ranks of this machine
  const int64_t taken = rank * (shared ? ranks : 1);
  if (available < 0 || taken <= available) return;
  Fail(ExitCode::kConfig, "runtime.device = {}: {} has {} available, {} would take {}; {}", shared ? "CPU" : "GPU",
       shared ? "this machine" : "this machine's GPU", FormatBytes(available),
       shared ? fmt::format("{} ranks", ranks) : "rank 0", FormatBytes(taken), cures);
}

}  // namespace

void PrintPlan(const RunConfig& config, int64_t world, const PlanOptions& options) {
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
  const std::vector<HostMemory> host_memory = PlannedHostMemory(session, optimizer, config);
  std::optional<FrozenSelection> frozen;
  if (!config.train.frozen_selection.empty()) frozen.emplace(session, config.model);
  fmt::print("{}\n{} parameters\n\nMemory of rank 0 on {}, {}:\n{}", RanksText(config, dp),
             session.model().params().parameters(), DeviceName(machine.device), DTypeName(machine.dtype),
             MemoryTable(session.arena().Rows(),
                         options.device_memory > 0 ? options.device_memory : Available(machine.device), host_memory));
  std::fflush(stdout);

  const Sources sources = OpenSources(config.data, config.model.vocab, config.model.nsa.select_block);
  CheckTokens(sources, config.model.vocab);
  fmt::print("\nData: {}\n", sources.train->Summary());
  if (frozen) GivenSelections(config).CheckRun(*sources.train, session.layout());
  if (sources.validation) fmt::print("Held out: {}\n", sources.validation->Summary());
  std::fflush(stdout);
  const bool cpu = machine.device == DeviceKind::kCpu;
  RequirePlanFits(config, machine.device, dp * cp, session.arena().bytes() + (cpu ? SumOf(host_memory) : 0),
                  options.device_memory);
  if (const std::string problem = RunFolder::Problem(config, options.older); !problem.empty()) {
    Fail(ExitCode::kConfig, "{}", problem);
  }
}

}  // namespace longspan
