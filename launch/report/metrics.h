// The metrics of a run (metrics.jsonl, launch/train/run_log.h) and what `longspan eval` left in it (eval.json,
// launch/report/eval_report.h), as reports show them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

struct StepMetric {
  int64_t step = 0;
  double loss = 0;  // NaN: none
  double tokens = 0, tokens_per_second = 0;
  double memory = 0;    // bytes
  double coverage = 0;  // of the blocks of other ranks, what was fetched
  double borrowed = 0;  // bytes that a forward pass of one sequence brings to a rank
};

// Of a layer's selection, as recorded last (launch/train/selection_stats.h).
struct SelectionMetric {
  int64_t layer = 0;
  double local = 0, halo = 0, remote = 0, distinct_blocks = 0, distinct_share = 0, jaccard = 0, hottest = 0, union2 = 0,
         union4 = 0, union8 = 0;
};

struct RunMetrics {
  std::vector<StepMetric> steps;  // ascending; of a step done again the last
  struct Evaluation {
    int64_t step = 0;
    double loss = 0;
  };
  std::vector<Evaluation> evaluations;
  int64_t selection_step = 0;  // 0: none was recorded
  std::vector<SelectionMetric> selection;
  struct Positions {
    int64_t begin = 0, end = 0;  // of tokens in their document
    double loss = 0;
  };
  std::vector<Positions> positions;
};

// What can be read of them: a run without metrics has none, and a line that is none is passed over.
RunMetrics ReadMetrics(const std::string& run_folder);

}  // namespace longspan
