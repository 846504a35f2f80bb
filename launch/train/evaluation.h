// Evaluation: the mean loss over held-out sequences.
#pragma once

#include <functional>
#include <optional>

#include "launch/data/sequence_source.h"
#include "launch/job/job.h"
#include "model/inputs.h"
#include "model/network/session.h"

namespace longspan {

struct HeldOut {
  double loss = 0;     // mean over the labels, if there are any
  int64_t labels = 0;  // of all sequences
};

// Collective. Of the first train.eval_sequences of `source`, which the replicas share out, in an order that is the same
// in every run: losses of runs on the same data compare.
// Leaves its sum of losses in `loss_sum` [1] F64, on the device. Nothing when `stops`, collective and asked before each
// sequence, says so. `done` is called after the forward pass of each sequence that this rank has a part of.
std::optional<HeldOut> Evaluate(Job& job, Session& session, const SequenceSource& source, const RunConfig& config,
                                const Tensor& loss_sum, const std::function<bool()>& stops,
                                const std::function<void(const Batch& part)>& done = {});

}  // namespace longspan
