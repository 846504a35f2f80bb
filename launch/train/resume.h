// Where a run with --resume goes on.
#pragma once

#include <vector>

#include "launch/checkpoint/checkpoint.h"
#include "launch/config/run_config.h"
#include "launch/config/stages.h"
#include "launch/data/step_loader.h"
#include "launch/train/run_log.h"
#include "model/network/session.h"
#include "model/training/optimizer.h"

namespace longspan {

// Throws Error (configuration) when the run that was found has gone beyond train.steps.
void RequireStepsLeft(const RunState& found, const RunConfig& config);

// Collective over all ranks. The stage in which the run goes on, by the names of its saves that rank 0 sees; FindPlace
// knows which of them is whole, of which stage it is, and what other nodes hold.
size_t LikelyStage(const RunConfig& config, const std::vector<Stage>& stages);

// Collective. Has `steps` go on at the place of the newest complete checkpoint, and returns its state; that before the
// first step, and says so, where there is none. `stage` may turn out to be another than that state's. Throws Error
// (data, configuration), as Checkpoints::Find, and when the run has gone beyond train.steps.
RunState FindPlace(Checkpoints& checkpoints, const RunConfig& config, const Stage& stage, StepLoader& steps,
                   RunLog& log);

// Collective. A run that begins gets the weights of train.initial_weights, where that is set, and says of what model
// they are. Throws Error (io, data) when they are not there or not of the model's shapes.
void TakeInitialWeights(const RunConfig& config, Session& session, Optimizer& optimizer, RunLog& log);

}  // namespace longspan
