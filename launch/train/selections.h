// The selections of a model's layers: gathered from the ranks while it runs, recorded to a file, or given to it.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/data/batches.h"
#include "launch/job/agreement.h"
#include "launch/job/job.h"
#include "launch/train/selection_file.h"
#include "launch/train/selection_stats.h"
#include "model/network/session.h"

namespace longspan {

// By layer, the chosen blocks [S,G,N] of a whole sequence; nothing for other kinds of attention.
using Selections = std::vector<std::vector<int32_t>>;

// From now on the session's forwards fill `selections`, on rank 0 of its cp group; null: no longer. The host waits for
// every layer: not within graphs, nor in a step that should be fast.
void ObserveSelections(Session& session, const ModelConfig& model, Selections* selections);

// By layer, the hash of what the last forward chose, over the ranks of its cp group; 0 for other kinds of attention.
std::vector<uint64_t> SelectionHashes(Session& session, Communicator& cp);

// A choice that the layers of a session take instead of their own.
class FrozenSelection {
 public:
  // Before the session's Start: reserves what the choice needs on the device. All outlive it.
  FrozenSelection(Session& session, const ModelConfig& model);

  // After it: of the sequence that is run next. Done when it returns.
  void Set(const Selections& selections);
  void Clear();  // the layers choose again

 private:
  Session& session_;
  std::vector<Tensor> given_;  // [T,G,N] I32 by layer, null for other kinds
};

// What train.frozen_selection gives to the sequences of the training data.
class GivenSelections {
 public:
  // Throws Error (data) when the file is no selection file of such blocks; (io). The configuration outlives it.
  explicit GivenSelections(const RunConfig& config);

  std::vector<int64_t> sequences() const { return file_.sequences(); }
  Claim claim() const { return {"train.frozen_selection", file_.Fingerprint(), file_.path()}; }
  // That the file has what the model's layers need for this sequence of the source, with blocks that its queries can
  // see. Throws Error (data) naming file, tensor, what was expected and what was found.
  void Check(const SequenceSource& source, int64_t sequence) const;
  // The same for every sequence of the run, before its first step.
  void CheckRun(const SequenceSource& source, const Layout& layout) const;
  Selections Of(int64_t sequence) const;  // which was checked

 private:
  const RunConfig& config_;
  SelectionFile file_;
};

// That of train.frozen_selection, the same on all ranks and checked for the whole run; none where it is empty.
std::optional<GivenSelections> OpenGivenSelections(const RunConfig& config, const SequenceSource& source,
                                                   const Layout& layout, Communicator& world);

// The step whose selection is recorded, 0 for none. Throws Error (io) on the rank that `writes` when the file could not
// be.
int64_t RecordStep(const TrainConfig& train, bool writes);

// Writes train.record_selection: what the model, as it is now, chooses in the sequences of a step (from 1). Called by
// all ranks; replica 0 runs them forward, rank 0 writes.
RecordedSelections RecordSelections(Job& job, Session& session, const SequenceSource& source, const RunConfig& config,
                                    int64_t step);

}  // namespace longspan
