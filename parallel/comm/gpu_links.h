// GpuLinks: how the GPUs of a group reach one another: by NCCL, or by copies of memory that they open to one another.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "parallel/comm/checked_comm.h"
#include "parallel/comm/peer_message.h"

namespace longspan {

// Which recorded calls of a communicator, all of one stream, the GPU has done. Where more are under way than there are
// events, one event stands for several calls.
class CallsUnderWay {
 public:
  CallsUnderWay() = default;
  ~CallsUnderWay();
  CallsUnderWay(const CallsUnderWay&) = delete;
  CallsUnderWay& operator=(const CallsUnderWay&) = delete;
  // The call has been enqueued. What is captured in a graph is not under way.
  void Add(cudaStream_t stream, const CommCall& call, int64_t record);
  void TellDone();

 private:
  static constexpr size_t kEvents = 1024;
  std::mutex mutex_;
  std::array<cudaEvent_t, kEvents> events_{};
  std::array<int64_t, kEvents> records_{};
  size_t first_ = 0, count_ = 0;
  int device_ = 0;
};

class GpuLinks {
 public:
  using Piece = PeerMessage::Piece;                  // of 0 bytes: not sent
  using Messages = std::vector<std::vector<Piece>>;  // by rank of the group; none for this rank itself

  GpuLinks() = default;
  virtual ~GpuLinks() = default;
  GpuLinks(const GpuLinks&) = delete;
  GpuLinks& operator=(const GpuLinks&) = delete;
  virtual std::string name() const = 0;  // "NCCL 2.28.3"

  // Before the first transfer, collective. Throws Error, also when another thread aborts what waits for a rank that
  // never comes.
  virtual void Connect(const CommCall&) {}
  // Work of `stream`, for which the host does not wait and which a graph may record. What one rank sends another is cut
  // in pieces of the same sizes at both.
  virtual void Exchange(cudaStream_t stream, const CommCall& call, const Messages& sends, const Messages& receives) = 0;
  // The parts[r] bytes of rank r come to begins[r] of `receive`. `send` may be its own place there.
  virtual void AllGather(cudaStream_t stream, const CommCall& call, const char* send, char* receive,
                         const std::vector<int64_t>& parts, const std::vector<int64_t>& begins) = 0;
  virtual void Broadcast(cudaStream_t stream, const CommCall& call, char* data, int64_t bytes, int root) = 0;

  // Throws Error for what went wrong since the last call, here or at a peer.
  virtual void Check(const CommCall& call) = 0;

  // From any thread, LivingLinks being locked. What is under way ends soon, whatever comes of it, and nothing is sent
  // any more.
  virtual void Abort() = 0;
  virtual std::string Wrong() = 0;  // since; "" for nothing

  CallsUnderWay calls;
};

// Those of the process. One host thread makes, uses and ends them; another may poll and abort them.
struct LivingLinks {
  static LivingLinks& Get();
  void Enter(GpuLinks* links);  // once Abort and Wrong may be called
  void Leave(GpuLinks* links);  // while they still may

  std::mutex mutex;
  std::vector<GpuLinks*> all;
};

// Both are collective over `host`, which outlives the links.
std::unique_ptr<GpuLinks> MakeNcclLinks(Communicator& host, const CommCall& call);
// Null on every rank, and why, where ranks have different machines or their GPUs cannot reach one another's memory.
std::unique_ptr<GpuLinks> MakePeerLinks(Communicator& host, Device& device, std::string* why);

}  // namespace longspan
