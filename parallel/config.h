// How the ranks share the work.
#pragma once

#include <cstdint>

namespace longspan {

enum class LayoutKind { kContiguous, kHeadTail };
enum class SelectedExchange { kGather, kFetch, kAuto };
enum class Transport { kAuto, kNccl, kStaged, kPeer };  // of tensors in GPU memory
inline const char* TransportName(Transport transport) {
  constexpr const char* kNames[] = {"AUTO", "NCCL", "STAGED", "PEER"};
  return kNames[static_cast<int>(transport)];
}

struct ParallelConfig {
  int64_t cp = 1;  // ranks a sequence is cut over
  int64_t dp = 0;  // replicas; 0 = world size / cp
  LayoutKind layout = LayoutKind::kHeadTail;
  SelectedExchange selected_exchange = SelectedExchange::kGather;
  Transport transport = Transport::kAuto;
  bool share_gpu = false;           // several ranks may use one GPU
  int64_t transfer_processors = 0;  // of a GPU, that attention leaves to transfers
  bool operator==(const ParallelConfig&) const = default;
};

}  // namespace longspan
