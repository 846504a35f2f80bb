// What must hold between the values of a configuration.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/config/run_config.h"

namespace longspan {

// The broken rules, also with a world of `world` ranks (0 = not known yet). Each is one line "key = value: rule; cure".
// An empty list means good. Unless the program `reads_data`, no dataset need be named.
std::vector<std::string> Problems(const RunConfig& config, int64_t world, bool reads_data = true);

}  // namespace longspan
