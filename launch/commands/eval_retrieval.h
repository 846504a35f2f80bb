// The retrieval task on a model, by depth and length.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/data/retrieval.h"
#include "launch/job/job.h"
#include "launch/report/eval_report.h"
#include "model/network/session.h"

namespace longspan {

struct RetrievalPlan {
  std::vector<int64_t> lengths;  // of documents, each at most a sequence
  std::vector<int64_t> pairs;
  int64_t depths = 5;  // from the beginning to the end
  int64_t trials = 0;  // of each
};

// Throws Error (usage) naming the option, where the plan does not fit sequences of S = `sequence` tokens.
void CheckRetrieval(const RetrievalPlan& plan, int64_t sequence);

// Collective. A document counts as found when each token of the value is the model's first choice after those before
// it. As many documents as there is room for share a sequence, and see nothing of each other. `progress` is told how
// many sequences of how many are done.
std::vector<EvalReport::Retrieval> EvaluateRetrieval(Job& job, Session& session, const RunConfig& config,
                                                     const RetrievalDocuments& documents, const RetrievalPlan& plan,
                                                     const std::function<void(int64_t, int64_t)>& progress);

}  // namespace longspan
