// The communicator over MPI, on host memory. MPI moves bytes; all sums are ours, in rank order (rank_order.h), whatever
// algorithm MPI would have taken. Every verb runs as a task of the stream.
//
// On several nodes (nodes.h) a gather goes in two turns: each rank gives its part to those of its node and to one rank
// of every other, which passes it on there. Sums do not: they are taken rank by rank, so that those of a node could
// only be added before they travel where they come first of all.
#include <mpi.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/comm/checked_comm.h"
#include "parallel/comm/mpi_messages.h"
#include "parallel/comm/rank_order.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

// Memory that a reduce-scatter receives into; a longer one goes in rounds.
constexpr int64_t kRoundBytes = 4 << 20;

void CopyBytes(void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
}

int RankIn(MPI_Comm comm) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  return rank;
}

int SizeOf(MPI_Comm comm) {
  int size = 0;
  MPI_Comm_size(comm, &size);
  return size;
}

// Of each rank of `comm`, given that of this one.
std::vector<int> Gathered(MPI_Comm comm, int node, const CommCall& call) {
  std::vector<int> nodes(SizeOf(comm));
  CheckMpi(MPI_Allgather(&node, 1, MPI_INT, nodes.data(), 1, MPI_INT, comm), call);
  return nodes;
}

class MpiCommunicator final : public CheckedCommunicator {
 public:
  // Takes over `comm`. `node`: a number that ranks of one node have alike.
  MpiCommunicator(MPI_Comm comm, int node, const CommCall& call)
      : CheckedCommunicator(DeviceKind::kCpu, RankIn(comm), SizeOf(comm)),
        comm_(comm),
        node_(node),
        nodes_(Gathered(comm, node, call)) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  }
  std::string transport() const override { return "MPI"; }
  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized) MPI_Comm_free(&comm_);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  const NodeMap* nodes() const override { return nodes_.shares() ? &nodes_ : nullptr; }

 private:
  void DoAllReduce(Stream& stream, const Call& call, const Tensor& x, ReduceOp op) override {
    const std::vector<int64_t> parts = EvenParts(x.size(), size());
    const bool small = x.bytes() <= kSmallReduceBytes;
    const double far = small ? Far(x.bytes()) : Far(parts[rank()] * DTypeSize(x.dtype)) + FarGathered(x.dtype, parts);
    Transfers(stream, call, far, [this, call, x, op, parts, small] {
      if (small) {
        GatherAndReduce(call, x, op);
        return;
      }
      char* own = Bytes(x) + Begins(parts)[rank()] * DTypeSize(x.dtype);
      RunReduceScatter(call, x.dtype, op, Bytes(x), own, parts);
      RunAllGather(call, x.dtype, own, Bytes(x), parts);
    });
  }

  void DoAllGather(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                   const std::vector<int64_t>& parts) override {
    Transfers(stream, call, FarGathered(send.dtype, parts), [this, call, send, receive, parts] {
      RunAllGather(call, send.dtype, Bytes(send), Bytes(receive), parts);
    });
  }

  void DoReduceScatter(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                       const std::vector<int64_t>& parts) override {
    Transfers(stream, call, Far(receive.bytes()), [this, call, send, receive, parts] {
      RunReduceScatter(call, send.dtype, ReduceOp::kSum, Bytes(send), Bytes(receive), parts);
    });
  }

  void DoAllToAll(Stream& stream, const Call& call, const Tensor& send, const std::vector<int64_t>& send_counts,
                  const Tensor& receive, const std::vector<int64_t>& receive_counts) override {
    double far = 0;
    for (const int peer : Peers()) far += nodes_.Near(rank(), peer) ? 0.0 : static_cast<double>(receive_counts[peer]);
    far *= static_cast<double>(DTypeSize(receive.dtype));
    Transfers(stream, call, far, [this, call, send, send_counts, receive, receive_counts] {
      const int64_t width = DTypeSize(send.dtype);
      const std::vector<int64_t> from = Begins(send_counts), to = Begins(receive_counts);
      MpiMessages messages(comm_, call);
      for (int peer : Peers()) {
        messages.Receive(peer, Bytes(receive) + to[peer] * width, receive_counts[peer] * width);
        messages.Send(peer, Bytes(send) + from[peer] * width, send_counts[peer] * width);
      }
      CopyBytes(Bytes(receive) + to[rank()] * width, Bytes(send) + from[rank()] * width, send_counts[rank()] * width);
      messages.Wait();
    });
  }

  void DoSendReceive(Stream& stream, const Call& call, const std::vector<Transfer>& batch) override {
    double far = 0;
    for (const Transfer& transfer : batch) {
      const bool received = transfer.kind == Transfer::Kind::kReceive && !nodes_.Near(rank(), transfer.peer);
      if (received) far += static_cast<double>(transfer.tensor.bytes());
    }
    Transfers(stream, call, far, [this, call, batch] {
      MpiMessages messages(comm_, call);
      for (const Transfer& transfer : batch) {
        const Tensor& x = transfer.tensor;
        if (transfer.kind == Transfer::Kind::kSend) {
          messages.Send(transfer.peer, x.data, x.bytes());
        } else {
          messages.Receive(transfer.peer, x.data, x.bytes());
        }
      }
      messages.Wait();
    });
  }

  void DoBroadcast(Stream& stream, const Call& call, const Tensor& x, int root) override {
    const double far = nodes_.Near(rank(), root) ? 0.0 : static_cast<double>(x.bytes());  // at most
    Transfers(stream, call, far, [this, call, x, root] {
      for (int64_t offset = 0; offset < x.bytes(); offset += MpiMessages::kPieceBytes) {
        const int piece = static_cast<int>(std::min(MpiMessages::kPieceBytes, x.bytes() - offset));
        CheckMpi(MPI_Bcast(Bytes(x) + offset, piece, MPI_BYTE, root, comm_), call);
      }
    });
  }

  void DoBarrier(const Call& call) override { CheckMpi(MPI_Barrier(comm_), call); }

  std::unique_ptr<CheckedCommunicator> DoSplit(const Call& call, int color, int key) override {
    MPI_Comm group = MPI_COMM_NULL;
    CheckMpi(MPI_Comm_split(comm_, color, key, &group), call);
    return std::make_unique<MpiCommunicator>(group, node_, call);
  }

  // `far`: bytes of what this rank receives that come from other nodes.
  static void Transfers(Stream& stream, const Call& call, double far, std::function<void()> task) {
    const auto recorded = [record = call.record, task = std::move(task)] {
      const Transferring transferring(record);
      task();
    };
    Launch(stream, call.name, {0, call.received, far}, recorded, call.id());
  }
  // Bytes that come from other nodes: where each rank there sends so many, and in a gather.
  double Far(int64_t bytes) const { return static_cast<double>(bytes) * nodes_.far(rank()); }
  double FarGathered(DType dtype, const std::vector<int64_t>& counts) const {
    int64_t elements = 0;
    for (const int peer : Peers()) {
      if (!nodes_.Near(rank(), peer) && nodes_.Receiver(peer, rank()) == rank()) elements += counts[peer];
    }
    return static_cast<double>(elements * DTypeSize(dtype));
  }

  // Memory for received parts; it grows to its largest use and stays.
  char* Scratch(int64_t bytes) {
    if (static_cast<int64_t>(scratch_.size()) < bytes) scratch_.resize(bytes);
    return scratch_.data();
  }

  void GatherAndReduce(const CommCall& call, const Tensor& x, ReduceOp op) {
    const int64_t bytes = x.bytes();
    char* all = Scratch(bytes * size());
    CheckMpi(MPI_Allgather(x.data, static_cast<int>(bytes), MPI_BYTE, all, static_cast<int>(bytes), MPI_BYTE, comm_),
             call);
    std::vector<const void*> parts(size());
    for (int r = 0; r < size(); ++r) parts[r] = all + r * bytes;
    ReduceInOrder(x.dtype, op, parts, x.data, x.size());
  }

  void RunAllGather(const CommCall& call, DType dtype, const char* send, char* receive,
                    const std::vector<int64_t>& counts) {
    const int64_t width = DTypeSize(dtype);
    const std::vector<int64_t> begins = Begins(counts);
    const auto place = [&](int from) { return receive + begins[from] * width; };
    MpiMessages messages(comm_, call);
    for (int peer : Peers()) {
      if (nodes_.Receiver(peer, rank()) == rank()) messages.Receive(peer, place(peer), counts[peer] * width);
      if (nodes_.Receiver(rank(), peer) == peer) messages.Send(peer, send, counts[rank()] * width);
    }
    CopyBytes(place(rank()), send, counts[rank()] * width);
    messages.Wait();
    if (!nodes_.shares()) return;
    for (int from = 0; from < size(); ++from) {
      if (nodes_.Near(from, rank())) continue;
      const int receiver = nodes_.Receiver(from, rank());
      if (receiver != rank()) messages.Receive(receiver, place(from), counts[from] * width);
      for (int peer : Peers()) {
        if (receiver == rank() && nodes_.Near(rank(), peer)) messages.Send(peer, place(from), counts[from] * width);
      }
    }
    messages.Wait();
  }

  // Every rank sends every other its part and adds what it got. In rounds, so that the memory received into is bounded.
  void RunReduceScatter(const CommCall& call, DType dtype, ReduceOp op, const char* send, char* receive,
                        const std::vector<int64_t>& counts) {
    const int64_t width = DTypeSize(dtype);
    const std::vector<int64_t> begins = Begins(counts);
    const int64_t longest = *std::max_element(counts.begin(), counts.end());
    const int64_t round = std::clamp<int64_t>(kRoundBytes / (width * size()), 1, std::max<int64_t>(longest, 1));
    char* scratch = Scratch(round * width * size());
    for (int64_t begin = 0; begin < longest; begin += round) {
      const auto length = [&](int r) { return std::clamp<int64_t>(counts[r] - begin, 0, round); };
      const int64_t own = length(rank());
      std::vector<const void*> parts(size());
      parts[rank()] = send + (begins[rank()] + begin) * width;
      MpiMessages messages(comm_, call);
      for (int peer : Peers()) {
        char* part = scratch + peer * round * width;
        parts[peer] = part;
        if (own > 0) messages.Receive(peer, part, own * width);
        if (length(peer) > 0) messages.Send(peer, send + (begins[peer] + begin) * width, length(peer) * width);
      }
      messages.Wait();
      ReduceInOrder(dtype, op, parts, receive + begin * width, own);
    }
  }

  MPI_Comm comm_;
  const int node_;
  const NodeMap nodes_;
  std::vector<char> scratch_;
};

}  // namespace

std::unique_ptr<Communicator> MakeMpiWorld(int ranks_of_node) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  LS_CHECK(initialized, "comm.make_world: MPI is not initialised");
  const CommCall call = {"comm.make_world", 0, 0, 1};
  MPI_Comm copy = MPI_COMM_NULL;
  CheckMpi(MPI_Comm_dup(MPI_COMM_WORLD, &copy), call);
  if (const char* const given = std::getenv("LONGSPAN_RANKS_OF_NODE"); given != nullptr && ranks_of_node == 0) {
    const char* const end = given + std::strlen(given);
    if (std::from_chars(given, end, ranks_of_node).ptr != end || ranks_of_node < 1) {
      Fail(ExitCode::kConfig, "LONGSPAN_RANKS_OF_NODE: expected a number from 1 on, found '{}'", given);
    }
  }
  int node = RankIn(copy);  // the lowest rank of the node
  if (ranks_of_node > 0) {
    node /= ranks_of_node;
  } else {
    MPI_Comm mates = MPI_COMM_NULL;
    CheckMpi(MPI_Comm_split_type(copy, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &mates), call);
    CheckMpi(MPI_Bcast(&node, 1, MPI_INT, 0, mates), call);
    CheckMpi(MPI_Comm_free(&mates), call);
  }
  return std::make_unique<MpiCommunicator>(copy, node, call);
}

}  // namespace longspan
