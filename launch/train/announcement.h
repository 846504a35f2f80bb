// Announcement: what a run is, said at its start.
#pragma once

#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/data/sequence_source.h"
#include "launch/job/job.h"
#include "model/network/session.h"
#include "runtime/memory.h"

namespace longspan {

// Lines: machine, `version` of the program, time, ranks, model, data, step (and behind it `stage`), the run's `folder`,
// and the tables of ranks and of the memory that will be allocated, `host` of it besides the device's. Of rank 0 alone.
std::string Announcement(const RunConfig& config, const std::string& stage, const Job& job, Session& session,
                         const Sources& sources, const std::string& folder, const std::string& version,
                         const std::vector<HostMemory>& host);

}  // namespace longspan
