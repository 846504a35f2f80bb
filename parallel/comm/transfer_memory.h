// What transfers between GPUs take of a GPU's memory besides the tensors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/rounding.h"
#include "runtime/tensor.h"

namespace longspan {

// A reduce-scatter receives from each rank in rounds, into scratch. `longest`: elements of the longest part, at
// least 1.
struct ReduceRounds {
  ReduceRounds(int64_t longest, DType dtype, int ranks)
      : length(std::clamp<int64_t>(kBytes / (DTypeSize(dtype) * ranks), 1, longest)),
        stride(RoundUp(length, kAlign / DTypeSize(dtype))),
        bytes(stride * ranks * DTypeSize(dtype)) {}
  static constexpr int64_t kBytes = 128 << 20, kAlign = 256;

  int64_t length;  // elements of a rank's part in one round
  int64_t stride;  // between the parts of two ranks in scratch
  int64_t bytes;   // of scratch
};

// What a rank opens to the other ranks of its group, more than one, with Transport::kPeer: a slot for each, for what is
// large (`kLarge` for all) and for small messages.
struct PeerStage {
  explicit PeerStage(int ranks)
      : slot(kLarge / (ranks - 1) / kAlign * kAlign), bytes(kFlags + (slot + kSmall) * (ranks - 1)) {}
  static constexpr int64_t kLarge = 64 << 20, kSmall = 1 << 20, kFlags = 4096, kAlign = 256;

  int64_t slot;   // bytes for one other rank
  int64_t bytes;  // of the stage
};

// NCCL itself, once communicators of so many ranks each have transferred; one rank needs none. As measured for two and
// four GPUs of one machine (NCCL 2.28, H100 over NVLink, as many channels as it chooses): what the GPU has in use after
// training steps, less the program's own tensors and scratch. -1, unknown, for more than eight ranks.
int64_t NcclBytes(const std::vector<int64_t>& groups);

}  // namespace longspan
