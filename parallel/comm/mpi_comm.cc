// The communicator over MPI, on host memory. MPI moves bytes; all sums are ours, in rank order (rank_order.h), whatever
// algorithm MPI would have taken. Every verb runs as a task of the stream.
#include <mpi.h>

#include <algorithm>
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

class MpiCommunicator final : public CheckedCommunicator {
 public:
  // Takes over `comm`.
  explicit MpiCommunicator(MPI_Comm comm)
      : CheckedCommunicator(DeviceKind::kCpu, RankIn(comm), SizeOf(comm)), comm_(comm) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  }
  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized) MPI_Comm_free(&comm_);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

 private:
  void DoAllReduce(Stream& stream, const Call& call, const Tensor& x, ReduceOp op) override {
    Transfers(stream, call, [this, call, x, op] {
      if (x.bytes() <= kSmallReduceBytes) {
        GatherAndReduce(call, x, op);
        return;
      }
      const std::vector<int64_t> parts = EvenParts(x.size(), size());
      char* own = Bytes(x) + Begins(parts)[rank()] * DTypeSize(x.dtype);
      RunReduceScatter(call, x.dtype, op, Bytes(x), own, parts);
      RunAllGather(call, x.dtype, own, Bytes(x), parts);
    });
  }

  void DoAllGather(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                   const std::vector<int64_t>& parts) override {
    Transfers(stream, call, [this, call, send, receive, parts] {
      RunAllGather(call, send.dtype, Bytes(send), Bytes(receive), parts);
    });
  }

  void DoReduceScatter(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                       const std::vector<int64_t>& parts) override {
    Transfers(stream, call, [this, call, send, receive, parts] {
      RunReduceScatter(call, send.dtype, ReduceOp::kSum, Bytes(send), Bytes(receive), parts);
    });
  }

  void DoAllToAll(Stream& stream, const Call& call, const Tensor& send, const std::vector<int64_t>& send_counts,
                  const Tensor& receive, const std::vector<int64_t>& receive_counts) override {
    Transfers(stream, call, [this, call, send, send_counts, receive, receive_counts] {
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
    Transfers(stream, call, [this, call, batch] {
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
    Transfers(stream, call, [this, call, x, root] {
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
    return std::make_unique<MpiCommunicator>(group);
  }

  static void Transfers(Stream& stream, const Call& call, std::function<void()> task) {
    const auto recorded = [record = call.record, task = std::move(task)] {
      const Transferring transferring(record);
      task();
    };
    Launch(stream, call.name, {0, call.received}, recorded, call.id());
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
    MpiMessages messages(comm_, call);
    for (int peer : Peers()) {
      messages.Receive(peer, receive + begins[peer] * width, counts[peer] * width);
      messages.Send(peer, send, counts[rank()] * width);
    }
    CopyBytes(receive + begins[rank()] * width, send, counts[rank()] * width);
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
  std::vector<char> scratch_;
};

}  // namespace

std::unique_ptr<Communicator> MakeMpiWorld() {
  int initialized = 0;
  MPI_Initialized(&initialized);
  LS_CHECK(initialized, "comm.make_world: MPI is not initialised");
  MPI_Comm copy = MPI_COMM_NULL;
  CheckMpi(MPI_Comm_dup(MPI_COMM_WORLD, &copy), {"comm.make_world", 0, 0, 1});
  return std::make_unique<MpiCommunicator>(copy);
}

}  // namespace longspan
