#include "launch/commands/planned_run.h"

#include <algorithm>
#include <cmath>

#include "launch/config/config.h"
#include "runtime/error.h"

namespace longspan {
namespace {

PlannedRun PlanOf(const ReportedRun& run, const RunConfig& config, const PlanRates& given) {
  const proto::Header& header = run.summary.header;
  PlannedRank rank;
  rank.device = header.gpu() ? DeviceKind::kGpu : DeviceKind::kCpu;
  rank.dtype = config.runtime.dtype == RuntimeType::kF32 || !header.gpu() ? DType::kF32 : DType::kBf16;
  rank.dp = std::max<int64_t>(1, header.dp_size());
  rank.rank = BusiestRank(config, rank.dp);
  double coverage = 0, count = 0;
  for (const StepMetric& step : run.metrics.steps) {
    if (!std::isfinite(step.coverage)) continue;
    coverage += step.coverage;
    count += 1;
  }
  if (count > 0) rank.coverage = std::min(1.0, coverage / count);

  const PlannedStep step = PlanStep(config, rank);
  PlannedRun plan;
  plan.rank = static_cast<int>(rank.rank);
  for (const MemoryRow& row : step.memory) plan.memory.emplace_back(MemoryUseName(row.use), row.bytes);
  plan.scratch = static_cast<double>(step.scratch_bytes);
  plan.nccl = static_cast<double>(step.nccl_bytes);
  for (const auto& [name, span] : step.spans) {
    if (IsTransfer(name)) {
      if (span.bytes > 0) plan.transfers.emplace_back(name, span.bytes);
    } else {
      plan.flops += span.flops;
    }
  }
  plan.dense_flops = DenseEquivalentFlops(config, step, header.ranks());
  if (given.path.empty()) return plan;
  const PlannedTimes times = TimesOf(step, DeviceRates(given.path, config), given);
  plan.least = std::max(times.compute, times.transfers);
  plan.most = times.compute + times.transfers;
  return plan;
}

}  // namespace

bool IsTransfer(const std::string& span) { return span.starts_with("comm."); }

PlannedTimes TimesOf(const PlannedStep& step, const DeviceRates& rates, const PlanRates& given) {
  PlannedTimes times;
  for (const auto& [name, span] : step.spans) {
    double& seconds = times.spans[name];
    if (!IsTransfer(name)) {
      times.compute += seconds = rates.Seconds(name, span);
    } else if (given.link_gbps > 0) {
      seconds = span.bytes / (1e9 * given.link_gbps) + 1e-6 * given.latency_us * static_cast<double>(span.count);
      times.transfers += seconds;
    }
  }
  return times;
}

ReportedRun ReadPlannedRun(const std::string& folder, const PlanRates& rates) {
  ReportedRun run = ReadRun(folder);
  try {
    const LoadedConfig loaded = ReadConfig(folder + "/config.textproto", {}, run.summary.header.ranks());
    RefuseProblems(loaded.problems);
    AddPlan(PlanOf(run, loaded.config, rates), &run);
  } catch (const Error& error) {
    if (!rates.path.empty()) throw;
    run.summary.problems.push_back(fmt::format("no plan beside it: {}", error.what()));
  }
  return run;
}

}  // namespace longspan
