#include "launch/train/resume.h"

#include "runtime/error.h"

namespace longspan {

void RequireStepsLeft(const RunState& found, const RunConfig& config) {
  if (found.step <= config.train.steps) return;
  Fail(ExitCode::kConfig, "train.steps = {}: the run has done {} already; set it to more", config.train.steps,
       found.step);
}

RunState FindPlace(Checkpoints& checkpoints, const RunConfig& config, const Stage& stage, StepLoader& steps,
                   RunLog& log) {
  const std::optional<RunState> found = checkpoints.Find();
  if (!found) {
    log.Line("  resume     there is no checkpoint: from the first step");
    return {};
  }
  RequireStepsLeft(*found, config);
  steps.Continue(found->step + 1, found->sequences - stage.sequences_before);
  return *found;
}

}  // namespace longspan
