// What `longspan train --dry-run` prints: the ranks and their tokens, parameters and memory, without MPI and a GPU.
#pragma once

#include <cstdint>
#include <string>

#include "launch/config/run_config.h"

namespace longspan {

// `world` ranks; 0 = what parallel.cp and parallel.dp say. The configuration has no problems with that world.
std::string DescribeRun(const RunConfig& config, int64_t world);

}  // namespace longspan
