// Training, as a story: open the data, build the model on the job's ranks, step, log, evaluate, report.
#pragma once

#include "launch/config/run_config.h"

namespace longspan {

// `longspan train`. MPI runs, the configuration fits the world. Returns the exit code; throws Error.
int RunTrain(const RunConfig& config);

}  // namespace longspan
