// StepLoader: the batches of one training step after another, each step's loaded while the one before it trains.
#pragma once

#include <cstdint>
#include <future>
#include <vector>

#include "launch/data/batches.h"

namespace longspan {

class StepLoader {
 public:
  struct Replica {
    int64_t index = 0;  // of `count` that share each step's sequences
    int64_t count = 1;
  };
  // Steps count from 1 to `steps`, each of `sequences_per_step` sequences over all replicas. The loader's source and
  // layout outlive this, and are read from another thread.
  StepLoader(BatchLoader loader, int64_t steps, int64_t sequences_per_step, const Replica& replica);

  // Step `step` begins at `place` of the order, and those after it follow; else step 1 begins at 0.
  void Continue(int64_t step, int64_t place);

  // This replica's sequences of the step, until the next call; waits until they are loaded (span "data.wait") and has
  // the next step's loaded meanwhile. In any order, but meant for the same step again or the next. Throws what loading
  // them threw.
  const std::vector<Batch>& Step(int64_t step);

  // How often each dataset was passed through when the step ends.
  std::vector<double> Epochs(int64_t step) const {
    return loader_.order().Epochs(first_place_ + (step + 1 - first_step_) * sequences_per_step_);
  }

 private:
  void Start(int64_t step);

  BatchLoader loader_;
  const int64_t steps_, sequences_per_step_;
  const Replica replica_;
  int64_t first_step_ = 1, first_place_ = 0;
  int64_t current_step_ = 0, next_step_ = 0;  // 0: none
  std::vector<Batch> current_, next_;
  std::future<void> loading_;  // of next_step_ to next_; waited for before all else goes
};

}  // namespace longspan
