// The weights of a checkpoint, without its optimizer.
#pragma once

#include <string>
#include <vector>

#include "launch/checkpoint/reader.h"
#include "model/params.h"
#include "model/training/optimizer.h"
#include "runtime/device.h"

namespace longspan {

std::vector<int64_t> Dimensions(const Shape& shape);  // as manifests have them

// What manifests call the weight of a parameter.
std::string WeightName(const std::string& parameter);

// Reads every parameter of the table into its weight, rounded to its dtype. Throws Error (data) naming the first that
// the checkpoint lacks or has in another shape or type; (io).
void LoadWeights(CheckpointReader& reader, Device& device, Stream& stream, const ParamTable& params);

// The same for a run that begins with them: into what each rank owns of the optimizer's, and from there into the
// weights of all. Collective over the optimizer's ranks.
void LoadWeights(CheckpointReader& reader, Device& device, Stream& stream, Optimizer& optimizer);

}  // namespace longspan
