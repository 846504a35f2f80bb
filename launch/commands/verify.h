// How `longspan verify` judges gradients.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "model/params.h"

namespace longspan {

struct GradientRow {
  std::string name;
  double reference = 0;  // RMS of the gradient at cp=1
  double error = 0;      // RMS of the difference
  double ratio = 0;      // error / max(reference, 1e-3 * RMS of all gradients)
};

// Compares every parameter's gradient; both are flat buffers of the table. A NaN gives a NaN ratio.
std::vector<GradientRow> CompareGradients(const ParamTable& params, std::span<const float> reference,
                                          std::span<const float> found);

// The row of the largest ratio; a NaN is larger than any number. `rows` is not empty.
const GradientRow& WorstGradient(const std::vector<GradientRow>& rows);

}  // namespace longspan
