// One micro-batch of a training step: forward, backward, and the sum of its losses, enqueued kernel by kernel or
// launched as a captured graph.
#pragma once

#include <array>
#include <memory>

#include "model/network/session.h"
#include "model/training/optimizer.h"

namespace longspan {

class MicroStep {
 public:
  // All outlive it. `loss_sum` [1] F64 on the device.
  MicroStep(Session& session, Optimizer& optimizer, const Tensor& loss_sum)
      : session_(session), optimizer_(optimizer), loss_sum_(loss_sum) {}

  // Of the batch that the session has loaded. Gradients are added up; those of the step's last micro-batch are reduced
  // behind the backward, and the compute stream waits for them.
  void Run(bool last);

  // From now on Run captures (at its first call of each kind) and launches graphs, or not. Before, it must have run
  // once: nothing may be allocated in a capture.
  void UseGraphs(bool use);
  bool uses_graphs() const { return use_graphs_; }
  // Whether Run enqueues kernel by kernel all the same, until told otherwise: the trace has no spans of what is within
  // a graph.
  void ShowSpans(bool show) { show_spans_ = show; }

 private:
  void Enqueue(bool last);

  Session& session_;
  Optimizer& optimizer_;
  const Tensor& loss_sum_;
  bool use_graphs_ = false, show_spans_ = false;
  int64_t scratch_bytes_ = 0;                     // that the graphs were captured with
  std::array<std::unique_ptr<Graph>, 2> graphs_;  // by `last`
};

}  // namespace longspan
