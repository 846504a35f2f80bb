// The run's folder and its metrics: runs/NAME/{config.textproto, metrics.jsonl, profile/}. Rank 0 writes; the other
// ranks hold a RunLog that does nothing.
//
// metrics.jsonl, one object a line:
//   {"kind":"step","step":1,"loss":..,"grad_norm":..,"learning_rate":..,"ms":..,"tokens_per_second":..,"tokens":..,
//    "memory_mib":..,"coverage":..,"borrowed_mib":..,"allocations":..,"selection":["<hash of layer 0, hex>",..]}
//   {"kind":"eval","step":..,"loss":..,"tokens":..}
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/train/progress.h"

namespace longspan {

struct StepMetrics {
  int64_t step = 0;  // from 1
  double loss = 0;
  double grad_norm = 0;
  double learning_rate = 0;
  double seconds = 0;
  int64_t tokens = 0;               // of the step, all ranks
  int64_t memory_bytes = 0;         // in use on the device, the largest of all ranks
  double coverage = 0;              // of remote blocks fetched; 1 for GATHER
  double borrowed_bytes = 0;        // that a forward pass of one sequence brings to a rank, the mean of all ranks
  int64_t allocations = 0;          // within the step, the most of all ranks (CountedAllocations): 0
  std::vector<uint64_t> selection;  // by layer
};

class RunLog {
 public:
  // `writes`: this is rank 0. Creates the folder and saves `config_text`; throws Error (io) when it cannot.
  RunLog(const RunConfig& config, const std::string& config_text, bool writes);

  const std::string& folder() const { return folder_; }
  void Line(const std::string& text);  // to the console
  void Step(const StepMetrics& metrics);
  void Eval(int64_t step, double loss, int64_t tokens);
  void Finish();

 private:
  std::string folder_;
  int64_t steps_;
  int64_t log_interval_;
  bool writes_;
  Progress progress_;
  std::ofstream metrics_;
};

std::string FormatCount(double value);  // 1234567 -> "1.23 M"

}  // namespace longspan
