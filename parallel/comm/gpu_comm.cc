// The communicator on GPU memory. Its links move bytes (gpu_links.h); all sums are ours, in rank order
// (rank_order_gpu.h). Every verb is work of the given stream. What a rank sends itself is a copy. A group of one rank
// needs no links.
#include "parallel/comm/gpu_comm.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/comm/checked_comm.h"
#include "parallel/comm/gpu_links.h"
#include "parallel/comm/rank_order_gpu.h"
#include "parallel/comm/transfer_memory.h"
#include "runtime/gpu.h"
#include "runtime/place.h"
#include "runtime/planted_fault.h"

namespace longspan {
namespace {

void CopyBytes(cudaStream_t stream, void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) {
    CudaCheck(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "comm: copy to this rank itself");
  }
}

class GpuCommunicator final : public CheckedCommunicator {
 public:
  GpuCommunicator(std::unique_ptr<Communicator> host, Device& device, Transport transport)
      : CheckedCommunicator(DeviceKind::kGpu, host->rank(), host->size(), host->group()),
        host_(std::move(host)),
        device_(device),
        transport_(transport) {
    if (size() == 1) return;
    const auto stream = device_.MakeStream("bootstrap");
    CudaStream(*stream);  // makes the device current
    const CommCall call = {"comm.connect_gpus", 0, rank(), size()};
    MakeLinks(call);
    const InPhase phase(HostPhase::kConnect);
    const auto stage = InStage("connect");
    PlantedFault::Get().Strike(CurrentPlace());
    const Transferring making(RecordMaking(call.name));
    links_->Connect(call);
  }
  std::string transport() const override { return links_ ? links_->name() : "none"; }

 private:
  void MakeLinks(const CommCall& call) {
    if (transport_ != Transport::kPeer) {
      links_ = MakeNcclLinks(*host_, call);
      return;
    }
    std::string why;
    links_ = MakePeerLinks(*host_, device_, &why);
    if (!links_) Fail(ExitCode::kConfig, "parallel.transport = PEER: {}; set it to AUTO", why);
  }

  void DoAllReduce(Stream& stream, const Call& call, const Tensor& x, ReduceOp op) override {
    if (size() == 1 || x.size() == 0) return FlightRecorder::Get().Done(call.record);
    Launched(stream, call, [&](cudaStream_t cuda) {
      if (x.bytes() <= kSmallReduceBytes) {
        const ReduceRounds rounds(x.size(), x.dtype, size());
        LS_CHECK(rounds.length == x.size(), "{}: {} bytes of {} ranks are too many at once", call.Text(), x.bytes(),
                 size());
        char* const all = Scratch(stream, rounds);
        GpuLinks::Messages sends(size()), receives(size());
        for (int peer : Peers()) {
          sends[peer] = {{Bytes(x), x.bytes()}};
          receives[peer] = {{all + peer * rounds.stride * DTypeSize(x.dtype), x.bytes()}};
        }
        Exchange(cuda, call, sends, receives);
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
      GpuLinks::Messages sends(size()), receives(size());
      for (int peer : Peers()) {
        sends[peer] = {{Bytes(send) + from[peer] * width, send_counts[peer] * width}};
        receives[peer] = {{Bytes(receive) + to[peer] * width, receive_counts[peer] * width}};
      }
      Exchange(cuda, call, sends, receives);
    });
  }

  void DoSendReceive(Stream& stream, const Call& call, const std::vector<Transfer>& batch) override {
    Launched(stream, call, [&](cudaStream_t cuda) {
      CopyToSelf(cuda, call, batch);
      GpuLinks::Messages sends(size()), receives(size());
      for (const auto& [kind, peer, tensor] : batch) {
        if (peer == rank()) continue;
        (kind == Transfer::Kind::kSend ? sends : receives)[peer].push_back({Bytes(tensor), tensor.bytes()});
      }
      Exchange(cuda, call, sends, receives);
    });
  }

  void DoBroadcast(Stream& stream, const Call& call, const Tensor& x, int root) override {
    if (size() == 1 || x.size() == 0) return FlightRecorder::Get().Done(call.record);
    Launched(stream, call, [&](cudaStream_t cuda) { links_->Broadcast(cuda, call, Bytes(x), x.bytes(), root); });
  }

  void DoBarrier(const Call& call) override {
    CheckState(call);
    host_->Barrier();
  }

  std::unique_ptr<CheckedCommunicator> DoSplit(const Call& call, int color, int key) override {
    CheckState(call);
    return std::make_unique<GpuCommunicator>(host_->Split(color, key), device_, transport_);
  }

  template <typename Work>
  void Launched(Stream& stream, const Call& call, const Work& work) {
    CheckState(call);
    LaunchGpu(stream, call.name, {0, call.received}, work, call.id());
    if (links_) links_->calls.Add(CudaStream(stream), call, call.record);
  }

  void Exchange(cudaStream_t cuda, const CommCall& call, const GpuLinks::Messages& sends,
                const GpuLinks::Messages& receives) {
    if (links_) links_->Exchange(cuda, call, sends, receives);
  }

  void CheckState(const CommCall& call) {
    if (links_) links_->Check(call);
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
    std::vector<int64_t> bytes(parts);
    for (int64_t& part : bytes) part *= width;
    if (size() == 1) return CopyBytes(cuda, receive, send, bytes[0]);
    links_->AllGather(cuda, call, send, receive, bytes, Begins(bytes));
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
      GpuLinks::Messages sends(size()), receives(size());
      for (int peer : Peers()) {
        sends[peer] = {{const_cast<char*>(send) + (begins[peer] + begin) * width, length(peer) * width}};
        receives[peer] = {{scratch + peer * rounds.stride * width, own * width}};
      }
      Exchange(cuda, call, sends, receives);
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
  const Transport transport_;
  GpuScratch scratch_{"transfers"};
  std::unique_ptr<GpuLinks> links_;  // goes before host_
};

}  // namespace

void AbortTransfers() {
  const std::lock_guard lock(LivingLinks::Get().mutex);
  for (GpuLinks* const links : LivingLinks::Get().all) links->Abort();
}

std::string PollTransfers() {
  const std::lock_guard lock(LivingLinks::Get().mutex);
  for (GpuLinks* const links : LivingLinks::Get().all) {
    links->calls.TellDone();
    if (std::string wrong = links->Wrong(); !wrong.empty()) return wrong;
  }
  return "";
}

std::unique_ptr<Communicator> MakeGpuCommunicator(std::unique_ptr<Communicator> host, Device& device,
                                                  Transport transport) {
  LS_CHECK(device.kind() == DeviceKind::kGpu, "comm.make: expected a GPU, found {}", device.name());
  return std::make_unique<GpuCommunicator>(std::move(host), device, transport);
}

}  // namespace longspan
