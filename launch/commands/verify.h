// `longspan verify`: before a long job, the same model and sequence on one rank and cut over the cp group.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "launch/commands/options.h"
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

// Runs one random sequence with uneven documents at cp=1 and at cp=P, prints a table of errors and the speed of the
// links. One rank holds the whole sequence: lower data.sequence_length where that does not fit. Throws Error (rank
// failed) naming the worst parameter when one is off by more than 1e-5 (BF16: 0.01), or when the losses are: on a CPU
// not one bit of a loss or a selection may differ; on a GPU cp=1 is given the selection of cp=P; (configuration) when
// parallel.cp is 1, as there is nothing to compare.
int RunVerify(const VerifyOptions& options);

}  // namespace longspan
