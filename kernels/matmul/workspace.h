// Scratch that each MatMulGpu lends cuBLASLt.
#pragma once

#include <cstdint>

namespace longspan {

inline constexpr int64_t kMatMulWorkspaceBytes = int64_t{32} << 20;

}  // namespace longspan
