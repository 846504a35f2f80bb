// The weights of a checkpoint, without its optimizer.
#pragma once

#include "launch/checkpoint/reader.h"
#include "model/params.h"
#include "runtime/device.h"

namespace longspan {

// What manifests call the weight of a parameter.
std::string WeightName(const std::string& parameter);

// Reads every parameter of the table into its weight, rounded to its dtype. Throws Error (data) naming the first that
// the checkpoint lacks or has in another shape or type; (io).
void LoadWeights(CheckpointReader& reader, Device& device, Stream& stream, const ParamTable& params);

}  // namespace longspan
