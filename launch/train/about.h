// What the checkpoints of a run say of it besides what changes from step to step.
#pragma once

#include <string>
#include <vector>

#include "launch/checkpoint/manifest.h"
#include "launch/config/run_config.h"
#include "launch/data/sequence_source.h"
#include "launch/job/job.h"

namespace longspan {

// Fingerprints of the datasets and their tokenizers.
std::vector<DataClaim> DataClaims(const Sources& sources);

// The bytes of the model of the data's tokenizer, where one of the datasets has it beside it; "" else.
std::string TokenizerModelOf(const Sources& sources);

// Program, libraries, ranks and configuration, and DataClaims. `dtype` is that of the weights.
Manifest AboutRun(const RunConfig& config, const Job& job, DType dtype, const Sources& sources,
                  const std::string& version);

}  // namespace longspan
