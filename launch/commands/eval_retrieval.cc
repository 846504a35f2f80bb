#include "launch/commands/eval_retrieval.h"

#include <algorithm>

#include "model/inputs.h"
#include "runtime/error.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

struct Document {
  size_t cell;
  uint64_t seed;
  int64_t sequence, begin;  // where it lies
};

}  // namespace

void CheckRetrieval(const RetrievalPlan& plan, int64_t sequence) {
  if (plan.trials == 0) return;
  const int64_t most_pairs = *std::max_element(plan.pairs.begin(), plan.pairs.end());
  for (const int64_t length : plan.lengths) {
    if (length > sequence) {
      Fail(ExitCode::kUsage, "--lengths: expected at most data.sequence_length = {}, found {}", sequence, length);
    }
    if (length < (most_pairs + 1) * kPairTokens) {
      Fail(ExitCode::kUsage, "--lengths: {} pairs and a question need {} tokens, found {}", most_pairs,
           (most_pairs + 1) * kPairTokens, length);
    }
  }
}

std::vector<EvalReport::Retrieval> EvaluateRetrieval(Job& job, Session& session, const RunConfig& config,
                                                     const RetrievalDocuments& documents, const RetrievalPlan& plan,
                                                     const std::function<void(int64_t, int64_t)>& progress) {
  const Mesh& mesh = job.mesh();
  const NsaConfig& nsa = config.model.nsa;
  const Layout& layout = session.layout();
  std::vector<EvalReport::Retrieval> cells;
  std::vector<Document> all;
  int64_t sequences = 0;
  for (const int64_t pairs : plan.pairs) {
    for (const int64_t length : plan.lengths) {
      const int64_t room = RoundUp(length, nsa.select_block);
      int64_t begin = layout.sequence();  // of the next document: in a new sequence
      for (int64_t d = 0; d < plan.depths; ++d) {
        const double depth = plan.depths > 1 ? static_cast<double>(d) / static_cast<double>(plan.depths - 1) : 0.5;
        for (int64_t trial = 0; trial < plan.trials; ++trial) {
          if (begin + length > layout.sequence()) {
            ++sequences;
            begin = 0;
          }
          all.push_back({cells.size(), all.size(), sequences - 1, begin});
          begin += room;
        }
        cells.push_back({.length = length, .pairs = pairs, .depth = depth, .found = 0, .asked = plan.trials});
      }
    }
  }

  std::vector<Job::Number> wrong(all.size(), {0, ReduceOp::kSum});  // tokens of its value, this rank's
  Arena arena;
  Tensor logits;
  arena.Reserve(&logits, MemoryUse::kWorkspace, "logits", session.context().dtype, {1, config.model.vocab});
  arena.Commit(session.device());
  Sequence sequence(layout.sequence());
  std::fill(sequence.targets.begin(), sequence.targets.end(), -1);
  Batch batch;
  for (int64_t number = mesh.dp_index(); number < sequences; number += mesh.dp_size()) {
    std::fill(sequence.tokens.begin(), sequence.tokens.end(), 0);
    std::vector<size_t> held;
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i].sequence != number) continue;
      const EvalReport::Retrieval& cell = cells[all[i].cell];
      documents.Fill({.pairs = cell.pairs, .queries = 1, .depth = cell.depth}, all[i].seed,
                     std::span(sequence.tokens).subspan(all[i].begin, cell.length));
      // The rest of the sequence is padding behind it, if no other document comes.
      std::fill(sequence.doc_start.begin() + all[i].begin, sequence.doc_start.end(), all[i].begin);
      held.push_back(i);
    }
    CutSequence(sequence, layout, mesh.cp_index(), nsa, &batch);
    session.compute().Synchronize();
    session.Load(batch);
    session.model().Forward(session.inputs());
    for (const size_t i : held) {
      const int64_t end = all[i].begin + cells[all[i].cell].length;
      for (int64_t t = end - kValueTokens; t < end; ++t) {
        const Layout::Place place = layout.Find(t - 1);
        if (place.rank != mesh.cp_index()) continue;
        session.model().Logits(logits, place.row);
        const std::vector<float> values = session.ToHost<float>(logits);
        const auto first = std::max_element(values.begin(), values.end()) - values.begin();
        if (first != sequence.tokens[t]) ++wrong[i].value;
      }
    }
    progress(std::min(number + mesh.dp_size(), sequences), sequences);
  }
  const std::vector<double> sums = job.Reduce(wrong);
  for (size_t i = 0; i < all.size(); ++i) {
    if (sums[i] == 0) ++cells[all[i].cell].found;
  }
  return cells;
}

}  // namespace longspan
