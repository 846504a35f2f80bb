// The steps in full detail as a timeline of all ranks on one clock: Chrome's JSON, which Perfetto opens. A process is a
// rank; its tracks are the steps, the spans of the host or of the GPU's compute stream, transfers beside it and other
// work beside it, and memory.
#pragma once

#include <string>

#include "launch/report/profile_data.h"

namespace longspan {

// Returns a line that says what was written. Throws Error (io), (data) where no step is in full detail.
std::string WriteChromeTrace(const ProfileData& data, const std::string& path);

}  // namespace longspan
