// What a run says: lines on the console, and metrics.jsonl in its folder. Rank 0 writes; the other ranks hold a RunLog
// that does nothing.
//
// metrics.jsonl, one object a line:
//   {"kind":"start","version":"longspan ..","time":"2026-01-31T12:00:00Z","command":"longspan train ..","ranks":4,
//    "dp":2,"cp":2,"device":"cpu (1 threads)","dtype":"f32","parameters":..,"step_tflop":..,"peak_tflops":..,
//    "environment":{"OMP_NUM_THREADS":"1",..}}
//   {"kind":"step","step":1,"elapsed":..,"loss":..,"grad_norm":..,"loss_z":..,"norm_z":..,"skipped":false,"learning_rate":..,"ms":..,"tokens":..,
//    "tokens_per_second":..,"labels":..,"labels_per_second":..,"peak_share":..,"memory_mib":..,"coverage":..,
//    "borrowed_mib":..,"allocations":..,"epochs":[..],"selection":["<hash of layer 0, hex>",..],"cause":".." of a
//    skipped one}
//   {"kind":"selection","step":..,"layers":[{"layer":..,"local":..,"halo":..,"remote":..,"distinct_blocks":..,
//    "distinct_share":..,"jaccard":..,"hottest":..,"union_2":..,"union_4":..,"union_8":..},..]}  before that step, of
//    train.record_selection (launch/train/selection_stats.h)
//   {"kind":"eval","step":..,"elapsed":..,"loss":..,"tokens":..}
//   {"kind":"resume","after":STEP,"lost_steps":..,"lost_seconds":..,"down_seconds":..,"start_seconds":.., and all that
//    "start" has}
//   {"kind":"lost","was":"step", and all that it had}: after the checkpoint that a run resumed from, and done again
//   {"kind":"stop","step":..,"elapsed":..,"reason":"SIGUSR1"}
// The help of `longspan train` says what they mean. What there is none of, or is not finite, is null.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/train/progress.h"
#include "launch/train/selection_stats.h"

namespace longspan {

struct StartMetrics {
  std::string version;  // of the program
  int ranks = 1;
  std::string device, dtype;
  int64_t parameters = 0;
  double step_flops = 0;  // of a step, all ranks, as counted beside the launches
  double peak_flops = 0;  // a second, of all ranks: of large matrix products, measured before the first step
  std::map<std::string, std::string> environment;  // launch/job/environment.h, of rank 0
  bool resumes = false;
  int64_t after = 0;           // the step from which it goes on
  double seconds = 0;          // that it had trained until then
  double startup_seconds = 0;  // until here, of the program or of a later stage
};

struct StepMetrics {
  int64_t step = 0;  // from 1
  double loss = 0;   // mean over the labels
  double grad_norm = 0;
  double loss_z = NAN, norm_z = NAN;  // of loss and grad_norm against the steps before (ZScores); NaN: none
  bool skipped = false;               // the update: loss or grad_norm were not fit for one
  double learning_rate = 0;
  double seconds = 0;
  int64_t tokens = 0;               // of the step, all ranks, padding too
  int64_t labels = 0;               // of the step, all ranks
  double peak_share = 0;            // step_flops a second, of peak_flops
  int64_t memory_bytes = 0;         // in use on the device, the largest of all ranks
  double coverage = 0;              // of remote blocks fetched; 1 for GATHER
  double borrowed_bytes = 0;        // that a forward pass of one sequence brings to a rank, the mean of all ranks
  int64_t allocations = 0;          // within the step, the most of all ranks (CountedAllocations): 0
  std::vector<double> epochs;       // of each dataset of the blend: how often it was passed through by then
  std::vector<uint64_t> selection;  // by layer; of the last sequence of replica 0
  std::string cause;                // of the first of skipped updates: what was not finite
};

class RunLog {
 public:
  // `writes`: this is rank 0.
  RunLog(const RunConfig& config, std::string folder, bool writes);

  // Opens the metrics: empty, or those of a run that resumes, whose lost lines it marks, and says what the restart
  // cost. Like all that writes them it throws Error (io), naming file and reason, once a line is not written.
  void Start(const StartMetrics& metrics);
  void Line(const std::string& text);  // to the console
  void Step(const StepMetrics& metrics);
  void Selection(int64_t step, const RecordedSelections& recorded);
  void Eval(int64_t step, double loss, int64_t tokens);
  void Stop(int64_t step, const std::string& reason);  // before the last step
  void Finish() { progress_.Clear(); }
  // Whether the metrics of the run so far have an evaluation after this step.
  bool HoldsEvaluation(int64_t step) const;
  double Elapsed() const;  // seconds since Start, and those before a run was resumed

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void Write(const std::string& line);

  const RunConfig& config_;
  const std::string path_;  // of the metrics
  const bool writes_;
  double start_ = 0;
  Progress progress_;
  std::unique_ptr<std::FILE, Close> metrics_;
};

}  // namespace longspan
