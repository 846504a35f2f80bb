#include "launch/config/stages.h"

#include <charconv>
#include <sstream>

namespace longspan {

std::string ReadStageEntry(const std::string& entry, Stage* stage) {
  constexpr const char* kForm = "expected \"LENGTH STEPS SEQUENCES_PER_STEP\", three whole numbers of 1 or more";
  std::istringstream words(entry);
  std::string word;
  for (int64_t* const value : {&stage->sequence_length, &stage->last_step, &stage->sequences_per_step}) {
    if (!(words >> word)) return kForm;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), *value);
    if (error != std::errc() || end != word.data() + word.size() || *value < 1 || *value > int64_t{1} << 40)
      return kForm;
  }
  return words >> word ? kForm : "";
}

std::vector<Stage> StagesOf(const RunConfig& config) {
  std::vector<Stage> stages;
  int64_t steps = 0, sequences = 0;
  for (const std::string& entry : config.data.stages) {
    Stage& stage = stages.emplace_back();
    ReadStageEntry(entry, &stage);
    stage.first_step = steps + 1;
    stage.last_step += steps;
    stage.sequences_before = sequences;
    sequences += (stage.last_step - steps) * stage.sequences_per_step;
    steps = stage.last_step;
  }
  stages.push_back(
      {config.data.sequence_length, steps + 1, config.train.steps, config.train.sequences_per_step, sequences});
  while (stages.size() > 1 && stages.back().first_step > config.train.steps) stages.pop_back();
  stages.back().last_step = config.train.steps < stages.back().last_step ? config.train.steps : stages.back().last_step;
  return stages;
}

size_t StageOfStep(const std::vector<Stage>& stages, int64_t step) {
  size_t stage = 0;
  while (stage + 1 < stages.size() && step > stages[stage].last_step) ++stage;
  return stage;
}

RunConfig AtStage(RunConfig config, const Stage& stage) {
  config.data.sequence_length = stage.sequence_length;
  config.train.sequences_per_step = stage.sequences_per_step;
  return config;
}

}  // namespace longspan
