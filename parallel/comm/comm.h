// Communicator: the collective verbs, over MPI on host memory; NCCL, peers' memory or staged copies on device
// memory.
//
// Every call but Message is collective over the group, made by all its ranks in the same order, and runs in the order
// of the given stream. One stream serves all transfers of a rank, so that the ranks never meet two transfers in
// different orders. Sums are taken in rank order, so the same inputs on the same number of ranks give the same bits.
// Tensors are contiguous; counts are in elements, by rank. Errors name the rank, the operation and its sequence number.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "parallel/comm/nodes.h"
#include "parallel/config.h"
#include "runtime/device.h"
#include "runtime/tensor.h"

namespace longspan {

enum class ReduceOp { kSum, kMax };

// One message of a batch; matching pairs are ordered as listed.
struct Transfer {
  enum class Kind { kSend, kReceive };
  Kind kind;
  int peer;
  Tensor tensor;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual uint32_t group() const = 0;  // a number that its ranks have alike, and (but for a hash's accidents) no other
  virtual std::string transport() const = 0;         // what carries its bytes: "NCCL 2.28.3"
  virtual bool host_waits() const { return false; }  // in the verbs, for the stream: they cannot be part of a graph

  // Of a group whose gathers go by nodes, so that exchanges may, too; null where all ranks share a node, or none do,
  // and over NCCL, whose rings find their own way.
  virtual const NodeMap* nodes() const { return nullptr; }

  virtual void AllReduce(Stream& stream, const Tensor& x, ReduceOp op) = 0;  // in place; F32, F64, I32, I64, BF16
  // receive = the ranks' `send`, one after another. Equal sizes unless counts are given. `send` may be its own place in
  // `receive`.
  virtual void AllGather(Stream& stream, const Tensor& send, const Tensor& receive,
                         const std::vector<int64_t>& counts = {}) = 0;
  // receive = sum over ranks of their part for this rank; `send` holds the parts one after another. Equal sizes unless
  // counts are given. `receive` may be its own place in `send`.
  virtual void ReduceScatter(Stream& stream, const Tensor& send, const Tensor& receive,
                             const std::vector<int64_t>& counts = {}) = 0;
  virtual void AllToAll(Stream& stream, const Tensor& send, const std::vector<int64_t>& send_counts,
                        const Tensor& receive, const std::vector<int64_t>& receive_counts) = 0;
  virtual void SendReceive(Stream& stream, const std::vector<Transfer>& batch) = 0;
  // One message, which only its two ranks know of, both by this verb: calls of all ranks keep their numbers.
  virtual void Message(Stream& stream, const Transfer& transfer) = 0;
  virtual void Broadcast(Stream& stream, const Tensor& x, int root) = 0;
  virtual void Barrier() = 0;  // of the hosts
  // Ranks of one color form a group, ordered by key.
  virtual std::unique_ptr<Communicator> Split(int color, int key) = 0;
};

// Over all ranks of MPI_COMM_WORLD. MPI must be initialised, and outlive the communicator. What is gathered crosses the
// network once for all ranks of a node. Ranks share a node where they may share memory; for tests and measurements,
// with `ranks_of_node` or the environment's LONGSPAN_RANKS_OF_NODE, where that many neighbours do. Collective.
std::unique_ptr<Communicator> MakeMpiWorld(int ranks_of_node = 0);

// For tensors in the memory of `device`, over the ranks of `host` (MPI), which it takes for its own use. Collective.
// `device` outlives it. kAuto: NCCL on a GPU of a build with it, else staged; a CPU needs neither and gets `host`.
// Throws Error (configuration) where kNccl or kPeer asks for what is not there.
std::unique_ptr<Communicator> MakeDeviceCommunicator(std::unique_ptr<Communicator> host, Device& device,
                                                     Transport transport);

// Staged: copies to host memory, the verb of `host`, copies back. Takes its place in the order of the stream, and the
// host waits until it is done: right wherever MPI works, never fast. `device` may be a CPU, for tests.
std::unique_ptr<Communicator> MakeStagedCommunicator(std::unique_ptr<Communicator> host, Device& device);

}  // namespace longspan
