// The gradients of a training step: its sequences, loaded ahead, forward and backward.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "launch/data/step_loader.h"
#include "launch/job/job.h"
#include "launch/train/open_data.h"
#include "launch/train/selections.h"
#include "launch/train/stopping.h"
#include "model/network/session.h"
#include "model/training/micro_step.h"
#include "model/training/optimizer.h"

namespace longspan {

class StepGradients {
 public:
  // All outlive it. Checks what train.frozen_selection gives; before the session's Start: reserves.
  StepGradients(Job& job, const RunConfig& config, Session& session, Optimizer& optimizer, const Sources& sources,
                Stopping& stopping, int64_t last_step);

  struct Loaded {
    const std::vector<Batch>& batches;  // of this replica
    double labels;                      // over all replicas
  };
  // By all ranks; `stopping` may have agreed on a stop afterwards.
  Loaded Load(int64_t step);
  // Adds the gradients of the mean loss, and reduces them over the ranks; returns the mean coverage. Enqueued, but for
  // the last sequence's load.
  double Add(const Loaded& step, bool reduce = true);

  const Tensor& loss_sum() const { return loss_sum_; }  // [1] F64: of this rank, since the last Add began
  StepLoader& loader() { return loader_; }
  MicroStep& micro_step() { return micro_step_; }
  // Until the next Add, where the selection is given otherwise.
  void LetLayersChoose() {
    if (frozen_) frozen_->Clear();
  }

 private:
  Job& job_;
  const Mesh& mesh_;
  Session& session_;
  Stopping& stopping_;
  StepLoader loader_;
  const std::optional<GivenSelections> given_;  // null: the layers choose
  std::optional<FrozenSelection> frozen_;       // likewise
  Tensor loss_sum_;
  MicroStep micro_step_;
};

}  // namespace longspan
