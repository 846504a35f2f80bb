// The profile that a training run records of itself.
#pragma once

#include <string>

#include "launch/config/run_config.h"
#include "launch/job/job.h"
#include "launch/report/recorder.h"
#include "model/network/session.h"

namespace longspan {

// Appends when the run goes on with an earlier part of it. `facts`: but for what the job says.
Recorder::Args RecorderArgs(const Job& job, Session& session, const RunConfig& config, const std::string& folder,
                            bool append, const RunFacts& facts);

}  // namespace longspan
