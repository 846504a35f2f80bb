// Training, as a story: open the data, build the model on the job's ranks, step, log, evaluate, report.
#pragma once

#include <functional>
#include <string>

#include "launch/config/run_config.h"
#include "launch/train/run_folder.h"

namespace longspan {

struct TrainOptions {
  OlderRun older = OlderRun::kKeep;                              // of the name
  std::string version;                                           // of the program, for metrics and checkpoints
  std::function<std::string(const std::string& folder)> report;  // writes that of the run at its end, and returns it
};

// `longspan train`. MPI runs, the configuration fits the world, and every rank has the same. Returns the exit code;
// throws Error.
int RunTrain(const RunConfig& config, const TrainOptions& options);

}  // namespace longspan
