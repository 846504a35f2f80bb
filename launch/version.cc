#include "launch/version.h"

#include <fmt/format.h>

namespace longspan {

std::string Version() {
  return fmt::format("longspan {} (revision {}, {}, backends: {})", LONGSPAN_VERSION, LONGSPAN_REVISION,
                     LONGSPAN_COMPILER, LONGSPAN_BACKENDS);
}

}  // namespace longspan
