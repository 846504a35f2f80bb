// Learning rate by step: linear warm-up, then constant, linear, cosine, or warm-up, stable, decay (arXiv 2404.06395).
#pragma once

#include <cstdint>

#include "model/config.h"

namespace longspan {

// Of step 0..steps-1, with W = warmup_steps, D = decay_steps (0: a fifth of all steps, at least one):
//   step < W              learning_rate * (step + 1) / (W + 1), so that step W is the first with learning_rate
//   CONSTANT              learning_rate from W on
//   LINEAR, COSINE        from learning_rate at W to learning_rate * final_fraction at the last step: W + 2 <= steps
//   WARMUP_STABLE_DECAY   learning_rate until D steps are left, which fall linearly to the same: W + 1 + D <= steps
// or W = steps: the run is the warm-up alone. launch/config/rules.cc refuses the rest.
double LearningRate(const OptimizerConfig& config, int64_t step, int64_t steps);

}  // namespace longspan
