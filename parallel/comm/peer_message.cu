#include <algorithm>

#include "parallel/comm/peer_message.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

constexpr int kThreads = 512;
constexpr int64_t kLeastChunk = 8 << 10;  // bytes that are worth another block

__device__ uint32_t Load(const uint32_t* flag) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
__device__ void Store(uint32_t* flag, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

// What was written before the other raised the flag is there for all threads of the block.
__device__ void Await(uint32_t* flag, const uint32_t* aborted) {
  if (threadIdx.x == 0) {
    while (Load(flag) == 0 && Load(aborted) == 0) {
    }
    Store(flag, 0);
  }
  __syncthreads();
}

// What the block has read and written is over before the other sees the flag.
__device__ void Raise(uint32_t* flag, const uint32_t* aborted) {
  __syncthreads();
  if (threadIdx.x == 0 && Load(aborted) == 0) Store(flag, 1);
}

__device__ void Copy(char* to, const char* from, int64_t bytes) {
  int64_t done = 0;
  if (reinterpret_cast<uintptr_t>(to) % 16 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
    const int64_t wide = bytes / 16;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < wide; i += kThreads) {
      reinterpret_cast<uint4*>(to)[i] = __ldcg(reinterpret_cast<const uint4*>(from) + i);
    }
    done = wide * 16;
  }
  for (int64_t i = done + threadIdx.x; i < bytes; i += kThreads) to[i] = __ldcg(from + i);
}

// Between the pieces and part `chunk` of the slot.
template <bool send>
__device__ void CopyChunk(const PeerMessage& message, int chunk) {
  const int64_t first = static_cast<int64_t>(chunk) * message.chunk_bytes, last = first + message.chunk_bytes;
  char* const part = message.slot + chunk * PeerMessage::kChunkBytes;
  int64_t begin = 0;
  for (const auto& piece : message.pieces) {
    const int64_t from = max(begin, first), to = min(begin + piece.bytes, last);
    if (from < to) {
      char* const data = piece.data + (from - begin);
      char* const in_slot = part + (from - first);
      Copy(send ? in_slot : data, send ? data : in_slot, to - from);
    }
    begin += (piece.bytes + PeerMessage::kAlign - 1) / PeerMessage::kAlign * PeerMessage::kAlign;
  }
}

__global__ void __launch_bounds__(kThreads) Exchange(const __grid_constant__ PeerMessages messages) {
  const int chunk = blockIdx.x;
  if (const PeerMessage& message = messages.sends[blockIdx.y]; chunk < message.chunks) {
    Await(message.taken + chunk, messages.aborted);
    CopyChunk<true>(message, chunk);
    Raise(message.arrived + chunk, messages.aborted);
  }
  if (const PeerMessage& message = messages.receives[blockIdx.y]; chunk < message.chunks) {
    Await(message.arrived + chunk, messages.aborted);
    CopyChunk<false>(message, chunk);
    Raise(message.taken + chunk, messages.aborted);
  }
}

}  // namespace

bool PeerMessage::Fill(std::span<const Piece> from) {
  int64_t bytes = 0;
  int count = 0;
  for (const Piece& piece : from) {
    if (piece.bytes == 0) continue;
    bytes += RoundUp(piece.bytes, kAlign);
    if (count == kPieces || bytes > kSlotBytes) return false;
    pieces[count++] = piece;
  }
  chunks = static_cast<int>(std::min<int64_t>(CeilDiv(bytes, kLeastChunk), kChunks));
  chunk_bytes = chunks > 0 ? static_cast<int>(RoundUp(CeilDiv(bytes, chunks), kAlign)) : 0;
  return true;
}

void ExchangeMessages(cudaStream_t stream, const PeerMessages& messages, int count) {
  int chunks = 0;
  for (int i = 0; i < count; ++i) chunks = std::max({chunks, messages.sends[i].chunks, messages.receives[i].chunks});
  if (chunks > 0) Exchange<<<dim3(chunks, count), kThreads, 0, stream>>>(messages);
}

}  // namespace longspan
