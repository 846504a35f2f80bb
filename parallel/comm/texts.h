// Texts that ranks tell each other.
#pragma once

#include <string>
#include <vector>

#include "parallel/comm/comm.h"

namespace longspan {

// The texts of all ranks of `group`, in rank order, on every rank. Collective over a group on host memory; the host
// waits.
std::vector<std::string> GatherTexts(Communicator& group, const std::string& text);

}  // namespace longspan
