// The stages of a run: data.stages, then the rest of the steps with data.sequence_length and train.sequences_per_step.
//
//   "LENGTH STEPS SEQUENCES"   so many steps, each of SEQUENCES sequences of LENGTH tokens
#pragma once

#include <string>
#include <vector>

#include "launch/config/run_config.h"

namespace longspan {

struct Stage {
  int64_t sequence_length = 0;
  int64_t first_step = 1, last_step = 0;  // of the run, from 1
  int64_t sequences_per_step = 0;
  int64_t sequences_before = 0;  // of the stages before it
};

// Reads an entry: its length, its sequences and, as last_step, its number of steps. Returns what was expected, "" when
// all is good.
std::string ReadStageEntry(const std::string& entry, Stage* stage);

// Those of the run's steps, in order, one at least. Entries must be good.
std::vector<Stage> StagesOf(const RunConfig& config);

// The one that has step `step`; the last for those after the run.
size_t StageOfStep(const std::vector<Stage>& stages, int64_t step);

// The run as it is in the stage.
RunConfig AtStage(RunConfig config, const Stage& stage);

}  // namespace longspan
