// Learning rate by step: linear warm-up, then constant, linear, cosine, or warm-up, stable, decay (arXiv 2404.06395).
#pragma once

#include <cstdint>

#include "model/config.h"

namespace longspan {

// Of step 0..steps-1. Warm-up reaches learning_rate at step warmup_steps; the last step has learning_rate *
// final_fraction (CONSTANT: learning_rate).
double LearningRate(const OptimizerConfig& config, int64_t step, int64_t steps);

}  // namespace longspan
