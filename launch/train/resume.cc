#include "launch/train/resume.h"

#include <algorithm>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/weights.h"
#include "launch/config/config.h"
#include "launch/train/run_folder.h"
#include "parallel/comm/texts.h"
#include "runtime/error.h"

namespace longspan {

void RequireStepsLeft(const RunState& found, const RunConfig& config) {
  if (found.step <= config.train.steps) return;
  Fail(ExitCode::kConfig, "train.steps = {}: the run has done {} already; set it to more", config.train.steps,
       found.step);
}

size_t LikelyStage(const RunConfig& config, const std::vector<Stage>& stages) {
  const auto world = MakeMpiWorld();
  int64_t step = 0;  // after which it goes on
  if (world->rank() == 0) {
    const std::string run = RunFolder::PathOf(config);
    for (const std::string& folder : {DiskFolder(run), MemoryFolder(RunFolder::ReadId(run))}) {
      try {
        for (const auto& found : CheckpointFolder(folder).List()) step = std::max(step, found.step);
      } catch (const Error&) {  // FindPlace says so
      }
    }
  }
  return StageOfStep(stages, std::stoll(GatherTexts(*world, fmt::format("{}", step))[0]) + 1);
}

RunState FindPlace(Checkpoints& checkpoints, const RunConfig& config, const Stage& stage, StepLoader& steps,
                   RunLog& log) {
  const std::optional<RunState> found = checkpoints.Find();
  if (!found) {
    log.Line("  resume     there is no checkpoint: from the first step");
    return {};
  }
  RequireStepsLeft(*found, config);
  if (found->step + 1 >= stage.first_step) {
    steps.Continue(found->step + 1, found->sequences - stage.sequences_before);
  }
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
