// NCCL. Sends and receives travel in groups, and only on communicators that exist: NCCL's own grouping then cannot
// deadlock.
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "parallel/comm/gpu_links.h"
#include "parallel/comm/nccl.h"
#include "runtime/error.h"

namespace longspan {
namespace {

// Throws Error with the call and NCCL's text, and what NCCL says about `comm` (may be null).
void CheckNccl(ncclResult_t result, const CommCall& call, ncclComm_t comm) {
  if (result == ncclSuccess) return;
  const char* const detail = ncclGetLastError(comm);
  Fail(ExitCode::kRankFailed, "{}: NCCL: {}{}{}", call.Text(), ncclGetErrorString(result),
       detail && *detail ? ": " : "", detail ? detail : "");
}

// Operations between construction and End are one.
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

class NcclLinks final : public GpuLinks {
 public:
  explicit NcclLinks(const ncclUniqueId& id) : id_(id) { LivingLinks::Get().Enter(this); }
  ~NcclLinks() override {
    LivingLinks::Get().Leave(this);
    if (comm_ && std::uncaught_exceptions() == exceptions_) {
      ncclCommDestroy(comm_);
      comm_ = nullptr;
    }
    NcclLinks::Abort();
  }

  // Some rank may never come: nothing here waits inside NCCL, where Abort could not end it. But a communicator whose
  // calls do not wait takes a thread for each transfer, which puts it into its stream or graph some time after the
  // call. So the ranks meet in one that never transfers, and split from it one whose calls wait.
  void Connect(const CommCall& call) override {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    Await(call, [&] { return ncclCommInitRankConfig(&meeting_, call.size, id_, call.rank, &config); });
    config.blocking = 1;
    Await(call, [&] { return ncclCommSplit(meeting_, /*color=*/0, call.rank, &comm_, &config); });
    ncclComm_t met = nullptr;
    {
      const std::lock_guard lock(LivingLinks::Get().mutex);
      met = std::exchange(meeting_, nullptr);
    }
    ncclCommDestroy(met);
  }

  std::string name() const override { return NcclVersion(); }

  void Exchange(cudaStream_t stream, const CommCall& call, const Messages& sends, const Messages& receives) override {
    Group group(call, comm_);
    for (int step = 1; step < call.size; ++step) {
      const int peer = (call.rank + step) % call.size;
      for (const Piece& piece : receives[peer]) {
        if (piece.bytes > 0) CheckNccl(ncclRecv(piece.data, piece.bytes, ncclInt8, peer, comm_, stream), call, comm_);
      }
      for (const Piece& piece : sends[peer]) {
        if (piece.bytes > 0) CheckNccl(ncclSend(piece.data, piece.bytes, ncclInt8, peer, comm_, stream), call, comm_);
      }
    }
    group.End();
  }

  void AllGather(cudaStream_t stream, const CommCall& call, const char* send, char* receive,
                 const std::vector<int64_t>& parts, const std::vector<int64_t>& begins) override {
    if (std::all_of(parts.begin(), parts.end(), [&](int64_t part) { return part == parts[0]; })) {
      if (parts[0] > 0) CheckNccl(ncclAllGather(send, receive, parts[0], ncclInt8, comm_, stream), call, comm_);
      return;
    }
    Group group(call, comm_);
    for (int root = 0; root < call.size; ++root) {
      if (parts[root] == 0) continue;
      char* const place = receive + begins[root];
      CheckNccl(ncclBroadcast(root == call.rank ? send : place, place, parts[root], ncclInt8, root, comm_, stream),
                call, comm_);
    }
    group.End();
  }

  void Broadcast(cudaStream_t stream, const CommCall& call, char* data, int64_t bytes, int root) override {
    CheckNccl(ncclBroadcast(data, data, bytes, ncclInt8, root, comm_, stream), call, comm_);
  }

  void Check(const CommCall& call) override {
    LS_CHECK(comm_, "{}: transfers were aborted", call.Text());
    ncclResult_t state = ncclSuccess;
    CheckNccl(ncclCommGetAsyncError(comm_, &state), call, comm_);
    CheckNccl(state, call, comm_);
  }

  void Abort() override {
    aborted_ = true;
    for (ncclComm_t* const comm : {&meeting_, &comm_}) {
      if (*comm) ncclCommAbort(std::exchange(*comm, nullptr));
    }
  }

  std::string Wrong() override {
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
      const std::lock_guard lock(LivingLinks::Get().mutex);
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

  const ncclUniqueId id_;
  ncclComm_t meeting_ = nullptr;  // while it makes comm_
  ncclComm_t comm_ = nullptr;
  bool aborted_ = false;
  const int exceptions_ = std::uncaught_exceptions();
};

}  // namespace

bool HasNccl() { return true; }

std::string NcclVersion() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return "";
  return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::unique_ptr<GpuLinks> MakeNcclLinks(Communicator& host, const CommCall& call) {
  ncclUniqueId id{};
  if (call.rank == 0) CheckNccl(ncclGetUniqueId(&id), call, nullptr);
  const auto host_stream = MakeCpuDevice()->MakeStream("bootstrap");
  host.Broadcast(*host_stream, HostView(reinterpret_cast<uint8_t*>(&id), {sizeof(id)}), 0);
  host_stream->Synchronize();
  host.Barrier();
  return std::make_unique<NcclLinks>(id);
}

}  // namespace longspan
