// Training, as a story: open the data, build the mesh and the model, step, log, evaluate, report.
#pragma once

#include "launch/commands/options.h"

namespace longspan {

// `longspan train`. MPI runs, the configuration fits the world. Returns the exit code; throws Error.
int RunTrain(const TrainOptions& options);

}  // namespace longspan
