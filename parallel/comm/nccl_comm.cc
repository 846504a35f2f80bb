// The communicator over NCCL, on GPU memory. NCCL moves bytes; all sums are ours, in rank order (rank_order_gpu.h),
// whatever algorithm NCCL would have taken. Every verb is work of the given stream. Sends and receives travel in
// groups, and only on communicators that exist: NCCL's own grouping then cannot deadlock. What a rank sends itself is a
// copy. A group of one rank needs no NCCL.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/comm/checked_comm.h"
#include "parallel/comm/nccl.h"
#include "parallel/comm/nccl_memory.h"
#include "parallel/comm/rank_order_gpu.h"
#include "runtime/gpu.h"
#include "runtime/place.h"
#include "runtime/planted_fault.h"

namespace longspan {
namespace {

// Throws Error with the call and NCCL's text, and what NCCL says about `comm` (may be null).
void CheckNccl(ncclResult_t result, const CommCall& call, ncclComm_t comm) {
  if (result == ncclSuccess) return;
  const char* const detail = ncclGetLastError(comm);
  Fail(ExitCode::kRankFailed, "{}: NCCL: {}{}{}", call.Text(), ncclGetErrorString(result),
       detail && *detail ? ": " : "", detail ? detail : "");
}

// Sends and receives between construction and End are one operation.
class Group {
 public:
  explicit Group(const CommCall& call, ncclComm_t comm) : call_(call), comm_(comm) {
    CheckNccl(ncclGroupStart(), call_, comm_);
  }
  ~Group() {
    if (open_) ncclGroupEnd();
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  void End() {
    open_ = false;
    CheckNccl(ncclGroupEnd(), call_, comm_);
  }

 private:
  const CommCall& call_;
  ncclComm_t comm_;
  bool open_ = true;
};

void CopyBytes(cudaStream_t stream, void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) {
    CudaCheck(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "comm: copy to this rank itself");
  }
}

// Which recorded calls of a communicator, all of one stream, the GPU has done. Where more are under way than there are
// events, one event stands for several calls.
class CallsUnderWay {
 public:
  ~CallsUnderWay() {
    for (cudaEvent_t event : events_) {
      if (event) cudaEventDestroy(event);
    }
  }
  // The call has been enqueued. What is captured in a graph is not under way.
  void Add(cudaStream_t stream, const CommCall& call, int64_t record) {
    if (record == 0) return;
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    CudaCheck(cudaStreamIsCapturing(stream, &capture), call.name);
    if (capture != cudaStreamCaptureStatusNone) return FlightRecorder::Get().Done(record);
    const std::lock_guard lock(mutex_);
    CudaCheck(cudaGetDevice(&device_), call.name);
    if (count_ < kEvents) ++count_;
    const size_t newest = (first_ + count_ - 1) % kEvents;
    if (!events_[newest]) CudaCheck(cudaEventCreateWithFlags(&events_[newest], cudaEventDisableTiming), call.name);
    CudaCheck(cudaEventRecord(events_[newest], stream), call.name);
    records_[newest] = record;
  }
  void TellDone() {
    const std::lock_guard lock(mutex_);
    if (count_ > 0) cudaSetDevice(device_);  // a thread that has none would take, and wake, the first
    int64_t done = 0;
    for (; count_ > 0 && cudaEventQuery(events_[first_]) == cudaSuccess; --count_) {
      done = records_[first_];
      first_ = (first_ + 1) % kEvents;
    }
    FlightRecorder::Get().DoneThrough(done);
  }

 private:
  static constexpr size_t kEvents = 1024;
  std::mutex mutex_;
  std::array<cudaEvent_t, kEvents> events_{};
  std::array<int64_t, kEvents> records_{};
  size_t first_ = 0, count_ = 0;
  int device_ = 0;
};

class Connection;

// Those of the process. One host thread makes, uses and ends them; another may poll and abort them.
struct LivingConnections {
  std::mutex mutex;
  std::vector<Connection*> all;
};
LivingConnections& Living() {
  static LivingConnections& living = *new LivingConnections;
  return living;
}

// What NCCL has for a group of ranks: a communicator, and which of its calls are under way.
class Connection {
 public:
  Connection() {
    const std::lock_guard lock(Living().mutex);
    Living().all.push_back(this);
  }
  ~Connection() {
    {
      const std::lock_guard lock(Living().mutex);
      std::erase(Living().all, this);
    }
    if (comm_ && std::uncaught_exceptions() == exceptions_) {
      ncclCommDestroy(comm_);
      comm_ = nullptr;
    }
    Abort();
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Some rank may never come: nothing here waits inside NCCL, where Abort could not end it. But a communicator whose
  // calls do not wait takes a thread for each transfer, which puts it into its stream or graph some time after the
  // call. So the ranks meet in one that never transfers, and split from it one whose calls wait.
  void Make(const CommCall& call, const ncclUniqueId& id) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    Await(call, [&] { return ncclCommInitRankConfig(&meeting_, call.size, id, call.rank, &config); });
    config.blocking = 1;
    Await(call, [&] { return ncclCommSplit(meeting_, /*color=*/0, call.rank, &comm_, &config); });
    ncclComm_t met = nullptr;
    {
      const std::lock_guard lock(Living().mutex);
      met = std::exchange(meeting_, nullptr);
    }
    ncclCommDestroy(met);
  }
  ncclComm_t comm() const { return comm_; }
  CallsUnderWay& calls() { return calls_; }

  // These two from any thread, with Living locked.
  void Abort() {
    aborted_ = true;
    for (ncclComm_t* const comm : {&meeting_, &comm_}) {
      if (*comm) ncclCommAbort(std::exchange(*comm, nullptr));
    }
  }
  // What went wrong since, "" for nothing.
  std::string Poll() {
    calls_.TellDone();
    ncclResult_t state = ncclSuccess;
    if (meeting_ || !comm_ || ncclCommGetAsyncError(comm_, &state) != ncclSuccess || state == ncclSuccess) return "";
    const char* const detail = ncclGetLastError(comm_);
    return fmt::format("NCCL: {}{}{}", ncclGetErrorString(state), detail && *detail ? ": " : "", detail ? detail : "");
  }

 private:
  // Throws Error when what `begin` begins in `meeting_` fails, or is aborted.
  template <typename Begin>
  void Await(const CommCall& call, const Begin& begin) {
    const auto ask = [&](const auto& question) {
      const std::lock_guard lock(Living().mutex);
      LS_CHECK(!aborted_, "{}: aborted", call.Text());
      const ncclResult_t result = question();
      if (result != ncclInProgress) CheckNccl(result, call, meeting_);
    };
    ask(begin);
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      ask([&] { return ncclCommGetAsyncError(meeting_, &state); });
    }
    CheckNccl(state, call, meeting_);
  }

  ncclComm_t meeting_ = nullptr;  // while it makes comm_
  ncclComm_t comm_ = nullptr;
  bool aborted_ = false;
  CallsUnderWay calls_;
  const int exceptions_ = std::uncaught_exceptions();
};

class NcclCommunicator final : public CheckedCommunicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> host, Device& device)
      : CheckedCommunicator(DeviceKind::kGpu, host->rank(), host->size(), host->group()),
        host_(std::move(host)),
        device_(device) {
    if (size() == 1) return;
    const CommCall call = {"comm.make_nccl", 0, rank(), size()};
    ncclUniqueId id{};
    if (rank() == 0) CheckNccl(ncclGetUniqueId(&id), call, nullptr);
    const auto host_stream = MakeCpuDevice()->MakeStream("bootstrap");
    host_->Broadcast(*host_stream, HostView(reinterpret_cast<uint8_t*>(&id), {sizeof(id)}), 0);
    host_stream->Synchronize();
    host_->Barrier();
    const auto stream = device_.MakeStream("bootstrap");
    CudaStream(*stream);  // makes the device current
    const InPhase phase(HostPhase::kConnect);
    const auto stage = InStage("connect");
    PlantedFault::Get().Strike(CurrentPlace());
    const Transferring making(RecordMaking(call.name));
    connection_.Make(call, id);
  }

 private:
  void DoAllReduce(Stream& stream, const Call& call, const Tensor& x, ReduceOp op) override {
    if (size() == 1 || x.size() == 0) return FlightRecorder::Get().Done(call.record);
    Launched(stream, call, [&](cudaStream_t cuda) {
      if (x.bytes() <= kSmallReduceBytes) {
        const ReduceRounds rounds(x.size(), x.dtype, size());
        LS_CHECK(rounds.length == x.size(), "{}: {} bytes of {} ranks are too many at once", call.Text(), x.bytes(),
                 size());
        char* const all = Scratch(stream, rounds);
        Group group(call, comm());
        for (int peer : Peers()) {
          Receive(cuda, call, peer, all + peer * rounds.stride * DTypeSize(x.dtype), x.bytes());
          Send(cuda, call, peer, x.data, x.bytes());
        }
        group.End();
        ReduceInOrderGpu(cuda, x.dtype, op, {all, rounds.stride, x.data, rank(), size()}, x.data, x.size());
        return;
      }
      const std::vector<int64_t> parts = EvenParts(x.size(), size());
      char* const own = Bytes(x) + Begins(parts)[rank()] * DTypeSize(x.dtype);
      RunReduceScatter(stream, cuda, call, x.dtype, op, Bytes(x), own, parts);
      RunAllGather(cuda, call, x.dtype, own, Bytes(x), parts);
    });
  }

  void DoAllGather(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                   const std::vector<int64_t>& parts) override {
    Launched(stream, call,
             [&](cudaStream_t cuda) { RunAllGather(cuda, call, send.dtype, Bytes(send), Bytes(receive), parts); });
  }

  void DoReduceScatter(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                       const std::vector<int64_t>& parts) override {
    Launched(stream, call, [&](cudaStream_t cuda) {
      RunReduceScatter(stream, cuda, call, send.dtype, ReduceOp::kSum, Bytes(send), Bytes(receive), parts);
    });
  }

  void DoAllToAll(Stream& stream, const Call& call, const Tensor& send, const std::vector<int64_t>& send_counts,
                  const Tensor& receive, const std::vector<int64_t>& receive_counts) override {
    Launched(stream, call, [&](cudaStream_t cuda) {
      const int64_t width = DTypeSize(send.dtype);
      const std::vector<int64_t> from = Begins(send_counts), to = Begins(receive_counts);
      CopyBytes(cuda, Bytes(receive) + to[rank()] * width, Bytes(send) + from[rank()] * width,
                send_counts[rank()] * width);
      Group group(call, comm());
      for (int peer : Peers()) {
        Receive(cuda, call, peer, Bytes(receive) + to[peer] * width, receive_counts[peer] * width);
        Send(cuda, call, peer, Bytes(send) + from[peer] * width, send_counts[peer] * width);
      }
      group.End();
    });
  }

  void DoSendReceive(Stream& stream, const Call& call, const std::vector<Transfer>& batch) override {
    Launched(stream, call, [&](cudaStream_t cuda) {
      CopyToSelf(cuda, call, batch);
      Group group(call, comm());
      for (const Transfer& transfer : batch) {
        if (transfer.peer == rank()) continue;
        if (transfer.kind == Transfer::Kind::kSend) {
          Send(cuda, call, transfer.peer, transfer.tensor.data, transfer.tensor.bytes());
        } else {
          Receive(cuda, call, transfer.peer, transfer.tensor.data, transfer.tensor.bytes());
        }
      }
      group.End();
    });
  }

  void DoBroadcast(Stream& stream, const Call& call, const Tensor& x, int root) override {
    if (size() == 1 || x.size() == 0) return FlightRecorder::Get().Done(call.record);
    Launched(stream, call, [&](cudaStream_t cuda) {
      CheckNccl(ncclBroadcast(x.data, x.data, x.bytes(), ncclInt8, root, comm(), cuda), call, comm());
    });
  }

  void DoBarrier(const Call& call) override {
    CheckState(call);
    host_->Barrier();
  }

  std::unique_ptr<CheckedCommunicator> DoSplit(const Call& call, int color, int key) override {
    CheckState(call);
    return std::make_unique<NcclCommunicator>(host_->Split(color, key), device_);
  }

  template <typename Work>
  void Launched(Stream& stream, const Call& call, const Work& work) {
    CheckState(call);
    LaunchGpu(stream, call.name, {0, call.received}, work, call.id());
    connection_.calls().Add(CudaStream(stream), call, call.record);
  }

  ncclComm_t comm() const { return connection_.comm(); }

  // Throws Error for what went wrong since the last call, here or at a peer.
  void CheckState(const CommCall& call) {
    if (size() == 1) return;
    LS_CHECK(comm(), "{}: transfers were aborted", call.Text());
    ncclResult_t state = ncclSuccess;
    CheckNccl(ncclCommGetAsyncError(comm(), &state), call, comm());
    CheckNccl(state, call, comm());
  }

  // Both ends know the length: nothing is not sent.
  void Send(cudaStream_t cuda, const CommCall& call, int peer, const void* data, int64_t bytes) {
    if (bytes > 0) CheckNccl(ncclSend(data, bytes, ncclInt8, peer, comm(), cuda), call, comm());
  }
  void Receive(cudaStream_t cuda, const CommCall& call, int peer, void* data, int64_t bytes) {
    if (bytes > 0) CheckNccl(ncclRecv(data, bytes, ncclInt8, peer, comm(), cuda), call, comm());
  }

  // The messages of a batch from this rank to itself, in order.
  void CopyToSelf(cudaStream_t cuda, const CommCall& call, const std::vector<Transfer>& batch) {
    std::vector<Tensor> sent, received;
    for (const Transfer& transfer : batch) {
      if (transfer.peer != rank()) continue;
      (transfer.kind == Transfer::Kind::kSend ? sent : received).push_back(transfer.tensor);
    }
    LS_CHECK(sent.size() == received.size(), "{}: sends itself {} tensors, expects {}", call.Text(), sent.size(),
             received.size());
    for (size_t i = 0; i < sent.size(); ++i) {
      LS_CHECK(sent[i].bytes() == received[i].bytes(), "{}: expected {} bytes from rank {}, found {}", call.Text(),
               received[i].bytes(), call.rank, sent[i].bytes());
      CopyBytes(cuda, received[i].data, sent[i].data, sent[i].bytes());
    }
  }

  void RunAllGather(cudaStream_t cuda, const CommCall& call, DType dtype, const char* send, char* receive,
                    const std::vector<int64_t>& parts) {
    const int64_t width = DTypeSize(dtype);
    const std::vector<int64_t> begins = Begins(parts);
    if (size() == 1) {
      CopyBytes(cuda, receive, send, parts[0] * width);
      return;
    }
    if (std::all_of(parts.begin(), parts.end(), [&](int64_t part) { return part == parts[0]; })) {
      if (parts[0] > 0) CheckNccl(ncclAllGather(send, receive, parts[0] * width, ncclInt8, comm(), cuda), call, comm());
      return;
    }
    Group group(call, comm());
    for (int root = 0; root < size(); ++root) {
      if (parts[root] == 0) continue;
      char* const place = receive + begins[root] * width;
      CheckNccl(ncclBroadcast(root == rank() ? send : place, place, parts[root] * width, ncclInt8, root, comm(), cuda),
                call, comm());
    }
    group.End();
  }

  // Every rank sends every other its part and adds what it got. In rounds, so that the memory received into is bounded.
  void RunReduceScatter(Stream& stream, cudaStream_t cuda, const CommCall& call, DType dtype, ReduceOp op,
                        const char* send, char* receive, const std::vector<int64_t>& parts) {
    const int64_t width = DTypeSize(dtype);
    if (size() == 1) {
      CopyBytes(cuda, receive, send, parts[0] * width);
      return;
    }
    const std::vector<int64_t> begins = Begins(parts);
    const int64_t longest = *std::max_element(parts.begin(), parts.end());
    if (longest == 0) return;
    const ReduceRounds rounds(longest, dtype, size());
    char* const scratch = Scratch(stream, rounds);
    for (int64_t begin = 0; begin < longest; begin += rounds.length) {
      const auto length = [&](int r) { return std::clamp<int64_t>(parts[r] - begin, 0, rounds.length); };
      const int64_t own = length(rank());
      Group group(call, comm());
      for (int peer : Peers()) {
        Receive(cuda, call, peer, scratch + peer * rounds.stride * width, own * width);
        Send(cuda, call, peer, send + (begins[peer] + begin) * width, length(peer) * width);
      }
      group.End();
      const char* const own_part = send + (begins[rank()] + begin) * width;
      ReduceInOrderGpu(cuda, dtype, op, {scratch, rounds.stride, own_part, rank(), size()}, receive + begin * width,
                       own);
    }
  }

  char* Scratch(Stream& stream, const ReduceRounds& rounds) {
    return static_cast<char*>(scratch_.Get(stream, rounds.bytes));
  }

  std::unique_ptr<Communicator> host_;
  Device& device_;
  GpuScratch scratch_{"transfers"};
  Connection connection_;
};

}  // namespace

bool HasNccl() { return true; }

std::string NcclVersion() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return "";
  return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

void AbortNccl() {
  const std::lock_guard lock(Living().mutex);
  for (Connection* connection : Living().all) connection->Abort();
}

std::string PollNccl() {
  const std::lock_guard lock(Living().mutex);
  for (Connection* connection : Living().all) {
    if (std::string wrong = connection->Poll(); !wrong.empty()) return wrong;
  }
  return "";
}

std::unique_ptr<Communicator> MakeNcclCommunicator(std::unique_ptr<Communicator> host, Device& device) {
  LS_CHECK(device.kind() == DeviceKind::kGpu, "comm.make_nccl: expected a GPU, found {}", device.name());
  return std::make_unique<NcclCommunicator>(std::move(host), device);
}

}  // namespace longspan
