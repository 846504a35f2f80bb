#pragma once

#include <string>

namespace longspan {

// "longspan 0.1.0 (revision 1a2b3c4, g++ 12.2.0, backends: cpu)"; the revision is that of the last CMake run.
std::string Version();

}  // namespace longspan
