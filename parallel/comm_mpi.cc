// The communicator over MPI, on host memory. MPI moves bytes; all sums are ours, in rank order (rank_order.h), whatever
// algorithm MPI would have taken. Every verb checks its arguments at once and then runs as a task of the stream.
#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "parallel/comm.h"
#include "parallel/mpi_messages.h"
#include "parallel/rank_order.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

// All-reduce below: one gather of everything, reduced by every rank. Above: reduce-scatter and all-gather.
constexpr int64_t kSmallReduceBytes = 16 << 10;
// Memory that a reduce-scatter receives into; a longer one goes in rounds.
constexpr int64_t kRoundBytes = 4 << 20;

int64_t Sum(const std::vector<int64_t>& counts) { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }

// Where each rank's part begins.
std::vector<int64_t> Begins(const std::vector<int64_t>& counts) {
  std::vector<int64_t> begins(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), begins.begin(), int64_t{0});
  return begins;
}

void CheckTensor(const MpiCall& call, const char* name, const Tensor& x) {
  LS_CHECK(x.device == DeviceKind::kCpu, "{}: {} is on {}, MPI transfers work on host memory", call.name, name,
           DeviceName(x.device));
  LS_CHECK(x.contiguous(), "{}: {} {} is not contiguous", call.name, name, x.shape.ToString());
  LS_CHECK(x.data != nullptr || x.size() == 0, "{}: {} {} is null", call.name, name, x.shape.ToString());
}

void CheckPair(const MpiCall& call, const Tensor& send, const Tensor& receive) {
  CheckTensor(call, "send", send);
  CheckTensor(call, "receive", receive);
  LS_CHECK(send.dtype == receive.dtype, "{}: send holds {}, receive holds {}", call.name, DTypeName(send.dtype),
           DTypeName(receive.dtype));
}

void CheckReducible(const MpiCall& call, const Tensor& x) {
  LS_CHECK(CanReduce(x.dtype), "{}: cannot reduce {}, expected F32, F64, I32 or I64", call.name, DTypeName(x.dtype));
}

void CheckCounts(const MpiCall& call, const char* name, const Tensor& x, const std::vector<int64_t>& counts) {
  LS_CHECK(static_cast<int>(counts.size()) == call.size, "{}: {} has {} counts, expected one for each of {} ranks",
           call.name, name, counts.size(), call.size);
  for (int64_t count : counts) LS_CHECK(count >= 0, "{}: {} has the negative count {}", call.name, name, count);
  LS_CHECK(x.size() == Sum(counts), "{}: {} {} has {} elements, its counts add up to {}", call.name, name,
           x.shape.ToString(), x.size(), Sum(counts));
}

void CopyBytes(void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
}

char* Bytes(const Tensor& x) { return static_cast<char*>(x.data); }

class MpiCommunicator final : public Communicator {
 public:
  // Takes over `comm`.
  explicit MpiCommunicator(MPI_Comm comm) : comm_(comm) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
  }
  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized) MPI_Comm_free(&comm_);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void AllReduce(Stream& stream, const Tensor& x, ReduceOp op) override {
    const MpiCall call = NextCall("comm.all_reduce");
    CheckTensor(call, "x", x);
    CheckReducible(call, x);
    const bool small = x.bytes() <= kSmallReduceBytes;
    const double received = static_cast<double>(x.bytes()) * (size_ - 1) * (small ? 1.0 : 2.0 / size_);
    Launch(stream, call.name, {0, received}, [this, call, x, op, small] {
      if (small) {
        GatherAndReduce(call, x, op);
        return;
      }
      std::vector<int64_t> counts(size_, x.size() / size_);
      for (int64_t r = 0; r < x.size() % size_; ++r) ++counts[r];
      char* own = Bytes(x) + Begins(counts)[rank_] * DTypeSize(x.dtype);
      RunReduceScatter(call, x.dtype, op, Bytes(x), own, counts);
      RunAllGather(call, x.dtype, own, Bytes(x), counts);
    });
  }

  void AllGather(Stream& stream, const Tensor& send, const Tensor& receive,
                 const std::vector<int64_t>& counts) override {
    const MpiCall call = NextCall("comm.all_gather");
    CheckPair(call, send, receive);
    const std::vector<int64_t> parts = counts.empty() ? std::vector<int64_t>(size_, send.size()) : counts;
    CheckCounts(call, "receive", receive, parts);
    LS_CHECK(send.size() == parts[rank_], "{}: send {} has {} elements, expected {}", call.name, send.shape.ToString(),
             send.size(), parts[rank_]);
    Launch(stream, call.name, {0, static_cast<double>(receive.bytes() - send.bytes())},
           [this, call, send, receive, parts] { RunAllGather(call, send.dtype, Bytes(send), Bytes(receive), parts); });
  }

  void ReduceScatter(Stream& stream, const Tensor& send, const Tensor& receive,
                     const std::vector<int64_t>& counts) override {
    const MpiCall call = NextCall("comm.reduce_scatter");
    CheckPair(call, send, receive);
    CheckReducible(call, send);
    const std::vector<int64_t> parts = counts.empty() ? std::vector<int64_t>(size_, receive.size()) : counts;
    CheckCounts(call, "send", send, parts);
    LS_CHECK(receive.size() == parts[rank_], "{}: receive {} has {} elements, expected {}", call.name,
             receive.shape.ToString(), receive.size(), parts[rank_]);
    Launch(stream, call.name, {0, static_cast<double>(receive.bytes()) * (size_ - 1)},
           [this, call, send, receive, parts] {
             RunReduceScatter(call, send.dtype, ReduceOp::kSum, Bytes(send), Bytes(receive), parts);
           });
  }

  void AllToAll(Stream& stream, const Tensor& send, const std::vector<int64_t>& send_counts, const Tensor& receive,
                const std::vector<int64_t>& receive_counts) override {
    const MpiCall call = NextCall("comm.all_to_all");
    CheckPair(call, send, receive);
    CheckCounts(call, "send", send, send_counts);
    CheckCounts(call, "receive", receive, receive_counts);
    LS_CHECK(send_counts[rank_] == receive_counts[rank_], "{}: this rank sends itself {} elements and expects {}",
             call.name, send_counts[rank_], receive_counts[rank_]);
    const int64_t width = DTypeSize(send.dtype);
    const double received = static_cast<double>((receive.size() - receive_counts[rank_]) * width);
    Launch(stream, call.name, {0, received}, [this, call, send, send_counts, receive, receive_counts, width] {
      const std::vector<int64_t> from = Begins(send_counts), to = Begins(receive_counts);
      MpiMessages messages(comm_, call);
      for (int peer : Peers()) {
        messages.Receive(peer, Bytes(receive) + to[peer] * width, receive_counts[peer] * width);
        messages.Send(peer, Bytes(send) + from[peer] * width, send_counts[peer] * width);
      }
      CopyBytes(Bytes(receive) + to[rank_] * width, Bytes(send) + from[rank_] * width, send_counts[rank_] * width);
      messages.Wait();
    });
  }

  void SendReceive(Stream& stream, const std::vector<Transfer>& batch) override {
    const MpiCall call = NextCall("comm.send_receive");
    double received = 0;
    for (const Transfer& transfer : batch) {
      const bool send = transfer.kind == Transfer::Kind::kSend;
      CheckTensor(call, send ? "sent tensor" : "received tensor", transfer.tensor);
      LS_CHECK(transfer.peer >= 0 && transfer.peer < size_, "{}: peer {} is not a rank of this group of {}", call.name,
               transfer.peer, size_);
      if (!send && transfer.peer != rank_) received += static_cast<double>(transfer.tensor.bytes());
    }
    Launch(stream, call.name, {0, received}, [this, call, batch] {
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

  void Broadcast(Stream& stream, const Tensor& x, int root) override {
    const MpiCall call = NextCall("comm.broadcast");
    CheckTensor(call, "x", x);
    LS_CHECK(root >= 0 && root < size_, "{}: root {} is not a rank of this group of {}", call.name, root, size_);
    Launch(stream, call.name, {0, rank_ == root ? 0.0 : static_cast<double>(x.bytes())}, [this, call, x, root] {
      for (int64_t offset = 0; offset < x.bytes(); offset += MpiMessages::kPieceBytes) {
        const int piece = static_cast<int>(std::min(MpiMessages::kPieceBytes, x.bytes() - offset));
        CheckMpi(MPI_Bcast(Bytes(x) + offset, piece, MPI_BYTE, root, comm_), call);
      }
    });
  }

  void Barrier() override { CheckMpi(MPI_Barrier(comm_), NextCall("comm.barrier")); }

  std::unique_ptr<Communicator> Split(int color, int key) override {
    const MpiCall call = NextCall("comm.split");
    LS_CHECK(color >= 0, "{}: color {} is negative", call.name, color);
    MPI_Comm group = MPI_COMM_NULL;
    CheckMpi(MPI_Comm_split(comm_, color, key, &group), call);
    return std::make_unique<MpiCommunicator>(group);
  }

 private:
  MpiCall NextCall(const char* name) { return {name, ++sequence_, rank_, size_}; }

  // The others, beginning behind this rank: so that not all ranks turn to rank 0 first.
  std::vector<int> Peers() const {
    std::vector<int> peers;
    for (int step = 1; step < size_; ++step) peers.push_back((rank_ + step) % size_);
    return peers;
  }

  // Memory for received parts; it grows to its largest use and stays.
  char* Scratch(int64_t bytes) {
    if (static_cast<int64_t>(scratch_.size()) < bytes) scratch_.resize(bytes);
    return scratch_.data();
  }

  void GatherAndReduce(const MpiCall& call, const Tensor& x, ReduceOp op) {
    const int64_t bytes = x.bytes();
    char* all = Scratch(bytes * size_);
    CheckMpi(MPI_Allgather(x.data, static_cast<int>(bytes), MPI_BYTE, all, static_cast<int>(bytes), MPI_BYTE, comm_),
             call);
    std::vector<const void*> parts(size_);
    for (int r = 0; r < size_; ++r) parts[r] = all + r * bytes;
    ReduceInOrder(x.dtype, op, parts, x.data, x.size());
  }

  void RunAllGather(const MpiCall& call, DType dtype, const char* send, char* receive,
                    const std::vector<int64_t>& counts) {
    const int64_t width = DTypeSize(dtype);
    const std::vector<int64_t> begins = Begins(counts);
    MpiMessages messages(comm_, call);
    for (int peer : Peers()) {
      messages.Receive(peer, receive + begins[peer] * width, counts[peer] * width);
      messages.Send(peer, send, counts[rank_] * width);
    }
    CopyBytes(receive + begins[rank_] * width, send, counts[rank_] * width);
    messages.Wait();
  }

  // Every rank sends every other its part and adds what it got. In rounds, so that the memory received into is bounded.
  void RunReduceScatter(const MpiCall& call, DType dtype, ReduceOp op, const char* send, char* receive,
                        const std::vector<int64_t>& counts) {
    const int64_t width = DTypeSize(dtype);
    const std::vector<int64_t> begins = Begins(counts);
    const int64_t longest = *std::max_element(counts.begin(), counts.end());
    const int64_t round = std::clamp<int64_t>(kRoundBytes / (width * size_), 1, std::max<int64_t>(longest, 1));
    char* scratch = Scratch(round * width * size_);
    for (int64_t begin = 0; begin < longest; begin += round) {
      const auto length = [&](int r) { return std::clamp<int64_t>(counts[r] - begin, 0, round); };
      const int64_t own = length(rank_);
      std::vector<const void*> parts(size_);
      parts[rank_] = send + (begins[rank_] + begin) * width;
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
  int rank_ = 0;
  int size_ = 0;
  int64_t sequence_ = 0;
  std::vector<char> scratch_;
};

std::unique_ptr<Communicator> Duplicate(MPI_Comm comm, const char* name) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  LS_CHECK(initialized, "{}: MPI is not initialised", name);
  MPI_Comm copy = MPI_COMM_NULL;
  CheckMpi(MPI_Comm_dup(comm, &copy), {name, 0, 0, 1});
  return std::make_unique<MpiCommunicator>(copy);
}

}  // namespace

std::unique_ptr<Communicator> MakeMpiWorld() { return Duplicate(MPI_COMM_WORLD, "comm.make_world"); }
std::unique_ptr<Communicator> MakeMpiSelf() { return Duplicate(MPI_COMM_SELF, "comm.make_self"); }

}  // namespace longspan
