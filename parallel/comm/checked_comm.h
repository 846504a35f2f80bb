// What every communicator does alike before anything travels: it numbers the call, refuses wrong tensors by name, fills
// in the counts and tells the flight recorder. The transports implement the Do... verbs and may rely on all that comm.h
// asks; they say when a recorded call starts and is done (Transferring).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "parallel/comm/comm.h"
#include "parallel/comm/recorder.h"
#include "runtime/trace.h"

namespace longspan {

// Which call of which communicator: every error names it by its Text.
struct CommCall {
  std::string Text() const;  // "comm.all_gather, call 3 of rank 0/2 in its group"

  const char* name;  // a literal, "comm.all_gather"
  int64_t sequence;  // counted by the communicator, from 1; a pair's messages by themselves
  int rank;          // in the communicator
  int size;
  int peer = -1;  // of a pair's message; -1: a call of all ranks
};

int64_t Sum(const std::vector<int64_t>& counts);
std::vector<int64_t> Begins(const std::vector<int64_t>& counts);  // where each rank's part begins
std::vector<int64_t> EvenParts(int64_t count, int size);          // as equal as can be
inline char* Bytes(const Tensor& x) { return static_cast<char*>(x.data); }

class CheckedCommunicator : public Communicator {
 public:
  CheckedCommunicator(DeviceKind memory, int rank, int size, uint32_t group = 1)
      : memory_(memory), rank_(rank), size_(size), group_(group) {}

  int rank() const final { return rank_; }
  int size() const final { return size_; }
  uint32_t group() const final { return group_; }
  void AllReduce(Stream& stream, const Tensor& x, ReduceOp op) final;
  void AllGather(Stream& stream, const Tensor& send, const Tensor& receive, const std::vector<int64_t>& counts) final;
  void ReduceScatter(Stream& stream, const Tensor& send, const Tensor& receive,
                     const std::vector<int64_t>& counts) final;
  void AllToAll(Stream& stream, const Tensor& send, const std::vector<int64_t>& send_counts, const Tensor& receive,
                const std::vector<int64_t>& receive_counts) final;
  void SendReceive(Stream& stream, const std::vector<Transfer>& batch) final;
  void Message(Stream& stream, const Transfer& transfer) final;
  void Broadcast(Stream& stream, const Tensor& x, int root) final;
  void Barrier() final;
  std::unique_ptr<Communicator> Split(int color, int key) final;

 protected:
  // An all-reduce of so few bytes is one gather of everything, reduced by every rank; a longer one is a reduce-scatter
  // and an all-gather.
  static constexpr int64_t kSmallReduceBytes = 16 << 10;

  // `received` is what this rank gets from others, in bytes. `parts` has an entry for each rank.
  struct Call : CommCall {
    uint32_t group = 0;
    double received = 0;
    int64_t record = 0;  // of the flight recorder
    // Of its span; none where ranks do not meet by it.
    TransferId id() const { return size > 1 && peer < 0 ? TransferId{group, size, sequence} : TransferId{}; }
  };
  virtual void DoAllReduce(Stream& stream, const Call& call, const Tensor& x, ReduceOp op) = 0;
  virtual void DoAllGather(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                           const std::vector<int64_t>& parts) = 0;
  virtual void DoReduceScatter(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                               const std::vector<int64_t>& parts) = 0;
  virtual void DoAllToAll(Stream& stream, const Call& call, const Tensor& send, const std::vector<int64_t>& send_counts,
                          const Tensor& receive, const std::vector<int64_t>& receive_counts) = 0;
  virtual void DoSendReceive(Stream& stream, const Call& call, const std::vector<Transfer>& batch) = 0;
  virtual void DoBroadcast(Stream& stream, const Call& call, const Tensor& x, int root) = 0;
  virtual void DoBarrier(const Call& call) = 0;
  virtual std::unique_ptr<CheckedCommunicator> DoSplit(const Call& call, int color, int key) = 0;
  // The record of making this communicator, for the constructor of one that meets the others there.
  int64_t RecordMaking(const char* name);
  virtual bool recorded() const { return true; }  // false where another communicator does the work, or none

  // The others, beginning behind this rank: so that not all ranks turn to rank 0 first.
  std::vector<int> Peers() const;

 private:
  Call NextCall(const char* name) { return {{name, ++sequence_, rank_, size_}, group_}; }
  // Once `received` is known. `common`: bytes that all ranks of the call give alike, -1 where each has its own.
  void Record(Call* call, DType dtype, int64_t common);
  void JoinRecorder();
  void CheckMessage(Call* call, const Transfer& transfer) const;
  void CheckTensor(const Call& call, const char* name, const Tensor& x) const;
  void CheckPair(const Call& call, const Tensor& send, const Tensor& receive) const;

  const DeviceKind memory_;
  const int rank_, size_;
  uint32_t group_;
  int64_t sequence_ = 0;
  std::map<int, int64_t> messages_;  // by peer: the last one's number
  bool joined_ = false;
  int recorder_group_ = -1;
};

}  // namespace longspan
