// Small messages between GPUs that reach one another's memory: one kernel sends and receives them all.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

namespace longspan {

// A message is a few pieces, cut into chunks for as many blocks of threads. To send, block b waits until `taken`[b] is
// up, writes its chunk to part b of the slot that the receiver has for it, and raises the receiver's `arrived`[b]; to
// receive, it waits for that, copies the chunk out of the slot and raises the sender's `taken`[b]. Who waits for a flag
// takes it down. Nothing depends on how often this was done.
struct PeerMessage {
  static constexpr int kPieces = 6, kChunks = 16;
  static constexpr int64_t kChunkBytes = 64 << 10, kSlotBytes = kChunks * kChunkBytes;
  static constexpr int64_t kAlign = 16;  // of pieces within the slot

  struct Piece {
    char* data;
    int64_t bytes;
  };
  // Of a message without pieces; both ends come to the same chunks. False, and no message, when a slot cannot hold it.
  bool Fill(std::span<const Piece> from);

  Piece pieces[kPieces];  // at the sender, or at the receiver; of 0 bytes behind the last
  int chunks;             // 0: no message
  int chunk_bytes;        // of all but the last
  char* slot;             // at the receiver
  uint32_t* arrived;      // [kChunks], at the receiver
  uint32_t* taken;        // [kChunks], at the sender
};
struct PeerMessages {
  static constexpr int kMost = 15;
  PeerMessage sends[kMost], receives[kMost];
  const uint32_t* aborted;  // of this rank: no flag is raised at another any more
};

// Of [0,count). All GPUs enqueue theirs in the same order.
void ExchangeMessages(cudaStream_t stream, const PeerMessages& messages, int count);

}  // namespace longspan
