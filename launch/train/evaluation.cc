#include "launch/train/evaluation.h"

#include <algorithm>

#include "launch/data/batches.h"
#include "parallel/comm/recorder.h"

namespace longspan {
namespace {

constexpr uint64_t kOrder = 1;

}  // namespace

std::optional<HeldOut> Evaluate(Job& job, Session& session, const SequenceSource& source, const RunConfig& config,
                                const Tensor& loss_sum, const std::function<bool()>& stops,
                                const std::function<void(const Batch& part)>& done) {
  const InPhase phase(HostPhase::kEvaluate);
  const Mesh& mesh = job.mesh();
  BatchLoader loader(source, session.layout(), mesh.cp_index(), config.model.nsa, kOrder);
  const int64_t count = std::min(config.train.eval_sequences, source.size());
  double labels = 0;
  Batch batch;
  session.ops().rows->Zero(session.compute(), loss_sum);
  for (int64_t first = 0; first < count; first += mesh.dp_size()) {
    if (stops()) return std::nullopt;
    const int64_t place = first + mesh.dp_index();
    if (place >= count) continue;
    loader.Load(place, batch);
    session.compute().Synchronize();  // the sequence before has left its page-locked memory
    session.Load(batch);
    session.model().Forward(session.inputs());
    session.ops().train->AddSum(session.compute(), session.model().token_loss(), loss_sum);
    labels += static_cast<double>(batch.labels);
    if (done) done(batch);
  }
  const std::vector<double> sums =
      job.Reduce({{session.ToHost<double>(loss_sum)[0], ReduceOp::kSum}, {labels, ReduceOp::kSum}});
  labels = sums[1] / mesh.cp_size();  // every rank of a cp group counts the same sequences
  return HeldOut{labels > 0 ? sums[0] / labels : 0, static_cast<int64_t>(labels)};
}

}  // namespace longspan
