// Training, as a story: open the data, build the model on the job's ranks, step, log, evaluate, report.
#pragma once

#include <string>

#include "launch/config/run_config.h"

namespace longspan {

struct TrainOptions {
  bool overwrite = false;  // an older run of the name
  std::string version;     // of the program, for the metrics
};

// `longspan train`. MPI runs, the configuration fits the world, and every rank has the same. Returns the exit code;
// throws Error.
int RunTrain(const RunConfig& config, const TrainOptions& options);

}  // namespace longspan
