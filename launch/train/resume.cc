#include "launch/train/resume.h"

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/weights.h"
#include "launch/config/config.h"
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

void TakeInitialWeights(const RunConfig& config, Session& session, Optimizer& optimizer, RunLog& log) {
  if (config.train.initial_weights.empty()) return;
  CheckpointReader reader(NewestCheckpoint(config.train.initial_weights));
  LoadWeights(reader, session.device(), session.compute(), optimizer);
  log.Line(fmt::format("  weights    of {}, after step {}", reader.path(), reader.manifest().state.step));
  const auto now = ConfigValues(config);
  const auto then = ConfigValues(ParseConfig(reader.manifest().config, "config", {}, 0).config);
  for (size_t i = 0; i < now.size(); ++i) {
    if (!now[i].first.starts_with("model.") || now[i].second == then[i].second) continue;
    log.Line(fmt::format("  changed    {}: {} in the checkpoint, {} now", now[i].first, then[i].second, now[i].second));
  }
}

}  // namespace longspan
