#include "launch/commands/dry_run.h"

#include <fmt/format.h>

#include <cstdio>
#include <optional>

#include "launch/checkpoint/checkpoint.h"
#include "launch/commands/configured.h"
#include "launch/data/sequence_source.h"
#include "launch/job/machine.h"
#include "launch/plan/planned_step.h"
#include "launch/plan/ranks_text.h"
#include "launch/train/about.h"
#include "launch/train/memory_fit.h"
#include "launch/train/resume.h"
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

// As the run would find it from here: in memory, of this machine alone.
void CheckResumption(const RunConfig& config, const Sources& sources) {
  const auto host = MakeCpuDevice();
  const auto alone = MakeLocalCommunicator(*host);
  const std::string run = RunFolder::PathOf(config);
  const Tier disk(*alone, DiskFolder(run), Nodes::One(1), /*in_memory=*/false);
  const std::string id = RunFolder::ReadId(run);
  const Tier memory(*alone, MemoryFolder(id.empty() ? "none" : id), Nodes::One(1), /*in_memory=*/true);
  const auto say = [](const std::string& line) { fmt::print("{}\n", line); };
  fmt::print("\nResuming {}:\n", run);
  const Resumption resumption = FindCheckpoint(disk, memory, config, DataClaims(sources), say);
  if (!resumption.found) {
    say("  there is no checkpoint: from the first step");
    return;
  }
  const Manifest& manifest = resumption.found->manifest;
  say(fmt::format("  written    {} by {} = dp {} x cp {}, on {}, {}", manifest.time, Count(manifest.ranks, "rank"),
                  manifest.dp, manifest.cp, manifest.device, manifest.program));
  RequireStepsLeft(manifest.state, config);
  std::fflush(stdout);
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
  const bool cpu = machine.device == DeviceKind::kCpu;
  const PlannedStep step =
      cpu ? PlannedStep() : PlanStep(config, {.device = machine.device, .dtype = machine.dtype, .dp = dp});
  fmt::print(
      "{}\n{} parameters\n\nMemory of rank 0 on {}, {}:\n{}", RanksText(config, dp),
      session.model().params().parameters(), DeviceName(machine.device), DTypeName(machine.dtype),
      MemoryTable(session.arena().Rows(), options.device_memory > 0 ? options.device_memory : Available(machine.device),
                  host_memory, Besides(step)));
  std::fflush(stdout);

  const Sources sources = OpenSources(config.data, config.model.vocab, config.model.nsa.select_block);
  CheckTokens(sources, config.model.vocab);
  fmt::print("\nData: {}\n", sources.train->Summary());
  if (frozen) GivenSelections(config).CheckRun(*sources.train, session.layout());
  if (sources.validation) fmt::print("Held out: {}\n", sources.validation->Summary());
  std::fflush(stdout);
  if (options.older == OlderRun::kResume) CheckResumption(Settle(config, static_cast<int>(dp * cp)), sources);
  int64_t taken = session.arena().bytes() + (cpu ? SumOf(host_memory) : 0);
  for (const auto& [what, bytes] : Besides(step)) taken += bytes;
  RequirePlanFits(config, machine.device, dp * cp, taken, options.device_memory);
  if (const std::string problem = RunFolder::Problem(config, options.older); !problem.empty()) {
    Fail(ExitCode::kConfig, "{}", problem);
  }
}

}  // namespace longspan
