#include "launch/train/graphs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr double kPay = 0.98;  // of the time without them

}  // namespace

double PassSeconds(Job& job, Stream& compute, const std::function<void()>& pass) {
  compute.Synchronize();
  const double begin = WallSeconds();
  pass();
  compute.Synchronize();
  return job.Reduce(WallSeconds() - begin, ReduceOp::kMax);
}

std::string ChooseGraphs(Job& job, const RunConfig& config, Stream& compute, MicroStep& micro_step, bool fetches,
                         const std::function<void()>& pass, double least_seconds, std::optional<bool> before) {
  const Graphs graphs = config.runtime.graphs;
  const bool host_waits = (fetches && job.mesh().cp_size() > 1) || job.mesh().world().host_waits();
  const bool possible = job.device().kind() == DeviceKind::kGpu && !host_waits;
  if (graphs == Graphs::kOn) {
    if (!possible) {
      Fail(ExitCode::kConfig,
           "runtime.graphs = ON: needs GPUs, and transfers that do not wait on the host (NCCL, no FETCH); set it to "
           "AUTO");
    }
    micro_step.UseGraphs(true);
    pass();  // captures
    return "  graphs     forward and backward are CUDA graphs, as runtime.graphs says";
  }
  if (graphs == Graphs::kOff || !possible) return "";
  if (before) {
    micro_step.UseGraphs(*before);
    if (*before) pass();  // captures
    return fmt::format("  graphs     as the checkpoint says: {}", *before ? "used" : "not used");
  }

  const auto seconds = [&] { return PassSeconds(job, compute, pass); };
  const bool long_anyway = job.Reduce(least_seconds, ReduceOp::kMax) > kLongPassSeconds;
  const double first = long_anyway ? INFINITY : seconds();
  if (first > kLongPassSeconds) return "  graphs     not used: forward and backward of a step take over half a second";
  const double enqueued = std::min(first, seconds());
  micro_step.UseGraphs(true);
  pass();  // captures
  const double tries[] = {seconds(), seconds()};
  const double launched = std::min(tries[0], tries[1]);
  if (launched >= kPay * enqueued) micro_step.UseGraphs(false);
  return fmt::format("  graphs     forward and backward of a step: {:.2f} ms enqueued, {:.2f} ms as CUDA graphs: {}",
                     enqueued * 1e3, launched * 1e3, micro_step.uses_graphs() ? "used" : "not used");
}

}  // namespace longspan
