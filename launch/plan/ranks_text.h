// Which rank has which tokens.
#pragma once

#include <cstdint>
#include <string>

#include "launch/config/run_config.h"

namespace longspan {

// Some lines: the ranks, dp x cp, the sequences of a step, and a row a rank, of many the first and the last.
std::string RanksText(const RunConfig& config, int64_t dp);

}  // namespace longspan
