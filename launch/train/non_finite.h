// Where a loss or a gradient that is not finite comes from.
#pragma once

#include <string>

#include "launch/job/job.h"
#include "model/params.h"

namespace longspan {

// Collective. Of gradients that were not summed over the ranks, and this rank's sum of losses, after the work of
// `stream` so far: names the ranks whose loss is not finite, and of the gradients that are not the one that the
// backward comes to first (the last of the table) with its ranks.
std::string NameNonFinite(Job& job, Stream& stream, const ParamTable& params, double loss_sum);

}  // namespace longspan
