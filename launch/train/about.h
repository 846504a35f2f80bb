// What the checkpoints of a run say of it besides what changes from step to step.
#pragma once

#include <string>

#include "launch/checkpoint/manifest.h"
#include "launch/config/run_config.h"
#include "launch/data/sequence_source.h"
#include "launch/job/job.h"

namespace longspan {

// Program, libraries, ranks and configuration, and fingerprints of the datasets and their tokenizers. `dtype` is that
// of the weights.
Manifest AboutRun(const RunConfig& config, const Job& job, DType dtype, const Sources& sources,
                  const std::string& version);

}  // namespace longspan
