#include "launch/train/step_gradients.h"

#include "runtime/place.h"

namespace longspan {

StepGradients::StepGradients(Job& job, const RunConfig& config, Session& session, Optimizer& optimizer,
                             const Sources& sources, Stopping& stopping, int64_t last_step)
    : job_(job),
      mesh_(job.mesh()),
      session_(session),
      stopping_(stopping),
      loader_({*sources.train, session.layout(), mesh_.cp_index(), config.model.nsa, config.data.seed}, last_step,
              config.train.sequences_per_step, {mesh_.dp_index(), mesh_.dp_size()}),
      given_(OpenGivenSelections(config, *sources.train, session.layout(), mesh_.host_world())),
      micro_step_(session, optimizer, loss_sum_) {
  session.arena().Reserve(&loss_sum_, MemoryUse::kWorkspace, "loss_sum", DType::kF64, {1});
  if (given_) frozen_.emplace(session, config.model);
}

StepGradients::Loaded StepGradients::Load(int64_t step) {
  const std::vector<Batch>& batches = loader_.Step(step);
  double labels = 0;
  for (const Batch& batch : batches) labels += static_cast<double>(batch.labels);
  const std::vector<double> all = job_.Reduce({{labels, ReduceOp::kSum}, {stopping_.wish(), ReduceOp::kMax}});
  stopping_.Agree(all[1]);
  return {batches, all[0] / mesh_.cp_size()};  // every rank of a cp group counts the same sequence
}

double StepGradients::Add(const Loaded& step, bool reduce) {
  session_.compute().Synchronize();  // what was loaded before has left its page-locked memory
  session_.ops().rows->Zero(session_.compute(), loss_sum_);
  double coverage = 0;
  for (size_t micro = 0; micro < step.batches.size(); ++micro) {
    {
      const auto stage = InStage("data");
      session_.Load(step.batches[micro], step.labels > 0 ? 1 / step.labels : 0, micro);
    }
    if (frozen_) frozen_->Set(given_->Of(step.batches[micro].number));
    micro_step_.Run(reduce && micro + 1 == step.batches.size());
    coverage += session_.model().coverage() / static_cast<double>(step.batches.size());
  }
  return coverage;
}

}  // namespace longspan
