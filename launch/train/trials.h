// Trials: how forward and backward of the steps run where the configuration leaves it open, by measuring them. What is
// measured is a whole pass of a step, so that coverage, rates, what kernels hide and the host's waits all count as they
// weigh. Which way it is may differ from run to run, bits do not. A wish to stop ends a trial between two passes; then
// all is as before it.
//
// parallel.selected_exchange = AUTO: selected rows are gathered or fetched, by all layers at once: a step in which one
// layer fetches waits on the host like any other and cannot be a graph, and the exposed part of one layer's transfers
// is not its own. GATHER is measured as it would run, as graphs where these pay; FETCH must be 3% faster.
//
// runtime.graphs = AUTO: passes are CUDA graphs where these save 2% of the better of two tries, more than the tries
// differ by. A long pass is not bound by its launches: where one takes over half a second nothing more is tried.
//
// The trace sees no kernel within a graph, so some steps are enqueued kernel by kernel all the same: those that are
// recorded in full detail, and of the others one so seldom that what it takes longer is under 1% of all. (Nodes that
// record events would cost more: 5 us each, measured.)
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/checkpoint/manifest.h"
#include "launch/config/run_config.h"
#include "launch/job/job.h"
#include "launch/train/run_log.h"
#include "launch/train/step_gradients.h"
#include "launch/train/stopping.h"
#include "model/network/session.h"

namespace longspan {

class Trials {
 public:
  // All outlive it.
  Trials(Job& job, const RunConfig& config, Session& session, StepGradients& gradients, Stopping& stopping,
         RunLog& log);

  // Before the first pass: what the state of a run on as many ranks says is not decided again.
  void GoOnAs(const RunState& state);
  void SaveTo(RunState* state) const;
  // Collective, once the pass of what is `loaded`, of that step, has run; it must take `least_seconds` on this rank.
  // Gradients are left with sums of no meaning. Throws Error (configuration) where runtime.graphs = ON is not possible.
  void Begin(int64_t step, const StepGradients::Loaded& loaded, double least_seconds);
  // Collective. The exchange is tried again after 10, 100, 1000, .. steps; the step begins as if nothing had been. Then
  // decides whether it is enqueued kernel by kernel, as one `in_full` detail is.
  void BeforeStep(int64_t step, bool in_full);

 private:
  bool exchange_is_open() const;
  std::vector<double> Exchange(bool fetches) const;
  void TryExchanges(int64_t step, const StepGradients::Loaded& loaded);
  std::string TryGraphs(const StepGradients::Loaded& loaded);
  std::string GraphsUse() const;
  double Seconds(const StepGradients::Loaded& loaded);
  void Say(const std::string& line);

  Job& job_;
  const RunConfig& config_;
  Session& session_;
  StepGradients& gradients_;
  Stopping& stopping_;
  RunLog& log_;
  std::optional<bool> fetches_, graphs_;  // of the state that the run goes on from
  double least_seconds_ = 0;
  int64_t tried_ = 0;    // the exchange, before that step
  int64_t shown_every_;  // of steps that are graphs, how often one is not
};

}  // namespace longspan
