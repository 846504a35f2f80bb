#include "launch/data/step_loader.h"

#include <utility>

#include "runtime/planted_fault.h"
#include "runtime/trace.h"

namespace longspan {

StepLoader::StepLoader(BatchLoader loader, int64_t steps, int64_t sequences_per_step, const Replica& replica)
    : loader_(std::move(loader)),
      steps_(steps),
      sequences_per_step_(sequences_per_step),
      replica_(replica),
      current_(sequences_per_step / replica.count),
      next_(current_.size()) {}

void StepLoader::Continue(int64_t step, int64_t place) {
  if (loading_.valid()) loading_.wait();
  current_step_ = next_step_ = 0;
  first_step_ = step;
  first_place_ = place;
}

void StepLoader::Start(int64_t step) {
  next_step_ = step;
  loading_ = std::async(std::launch::async, [this, step] {
    const auto stage = InStage("load");
    for (size_t micro = 0; micro < next_.size(); ++micro) {
      PlantedFault::Get().Strike(CurrentPlace());
      loader_.Load(first_place_ + BatchLoader::Place(step - first_step_, sequences_per_step_,
                                                     static_cast<int64_t>(micro), replica_.count, replica_.index),
                   next_[micro]);
      PlantedFault::Get().SlowDown(CurrentPlace());
    }
  });
}

const std::vector<Batch>& StepLoader::Step(int64_t step) {
  if (step == current_step_) return current_;
  if (step != next_step_) {
    if (loading_.valid()) loading_.wait();
    Start(step);
  }
  const auto stage = InStage("data");
  const double begin = WallSeconds();
  next_step_ = 0;
  loading_.get();
  Trace::Get().AddWait("data.wait", begin);
  std::swap(current_, next_);
  current_step_ = step;
  if (step < steps_) Start(step + 1);
  return current_;
}

}  // namespace longspan
