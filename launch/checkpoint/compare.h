// What a run that resumes has otherwise than the run that wrote its checkpoint.
#pragma once

#include <string>
#include <vector>

#include "launch/checkpoint/manifest.h"
#include "launch/config/run_config.h"

namespace longspan {

// One text each: "model.layers: 4 in the checkpoint, 5 now".
struct Differences {
  std::vector<std::string> refused;  // another model, tokenizer, dataset or order of it
  std::vector<std::string> changed;  // may be
};

Differences Compare(const Manifest& saved, const RunConfig& config, const std::vector<DataClaim>& data);

}  // namespace longspan
