#include "model/training/micro_step.h"

#include "runtime/place.h"

namespace longspan {

void MicroStep::Enqueue(bool last) {
  Transformer::GradientsReady reduce;
  if (last) reduce = [this](int64_t begin, int64_t end) { optimizer_.Reduce(begin, end); };
  session_.model().ForwardBackward(session_.inputs(), reduce);
  const auto stage = InStage("loss");
  session_.ops().train->AddSum(session_.compute(), session_.model().token_loss(), loss_sum_);
  if (last) optimizer_.FinishReduce();
}

void MicroStep::Run(bool last) {
  if (!use_graphs_ || show_spans_) {
    Enqueue(last);
    return;
  }
  // Scratch that has grown lies elsewhere.
  const int64_t scratch = CountedAllocations().scratch_bytes;
  if (scratch != scratch_bytes_) graphs_ = {};
  scratch_bytes_ = scratch;
  std::unique_ptr<Graph>& graph = graphs_[last ? 1 : 0];
  if (!graph) graph = session_.device().Capture(session_.compute(), [this, last] { Enqueue(last); });
  const auto stage = InStage("graph");
  graph->Launch();
}

void MicroStep::UseGraphs(bool use) {
  use_graphs_ = use;
  graphs_ = {};
}

}  // namespace longspan
