// The communicator for device memory over MPI on host memory: every verb copies to page-locked memory, runs on the host
// and copies back. When a verb returns, it is done. Sums are those of MPI's communicator, in rank order.
#include <memory>
#include <utility>
#include <vector>

#include "parallel/comm/checked_comm.h"
#include "runtime/host_buffer.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

constexpr int64_t kAlign = 256;

class StagedCommunicator final : public CheckedCommunicator {
 public:
  StagedCommunicator(std::unique_ptr<Communicator> host, Device& device)
      : CheckedCommunicator(device.kind(), host->rank(), host->size(), host->group()),
        host_(std::move(host)),
        device_(device) {}
  std::string transport() const override { return "copies to the host and " + host_->transport(); }
  bool host_waits() const override { return true; }  // even alone
  const NodeMap* nodes() const override { return host_->nodes(); }

 private:
  bool recorded() const override { return false; }  // the host's is
  // Runs verb(host twins) on the host between the copies of `in` from the device and those of `out` back to it. The
  // twins come in the order of `tensors`.
  struct Staged {
    Tensor tensor;
    bool in = false, out = false;
  };
  template <typename Verb>
  void Run(Stream& stream, const std::vector<Staged>& tensors, const Verb& verb) {
    int64_t bytes = 0;
    for (const Staged& staged : tensors) bytes += RoundUp(staged.tensor.bytes(), kAlign);
    char* next = static_cast<char*>(staging_.Get(device_, bytes));
    std::vector<Tensor> twins;
    for (const Staged& staged : tensors) {
      twins.emplace_back(next, staged.tensor.dtype, DeviceKind::kCpu, staged.tensor.shape);
      next += RoundUp(staged.tensor.bytes(), kAlign);
      if (staged.in) device_.Copy(stream, twins.back(), staged.tensor);
    }
    stream.Synchronize();
    verb(twins);
    host_stream_->Synchronize();
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].out) device_.Copy(stream, tensors[i].tensor, twins[i]);
    }
    stream.Synchronize();
  }

  void DoAllReduce(Stream& stream, const Call&, const Tensor& x, ReduceOp op) override {
    Run(stream, {{.tensor = x, .in = true, .out = true}},
        [&](const std::vector<Tensor>& t) { host_->AllReduce(*host_stream_, t[0], op); });
  }

  void DoAllGather(Stream& stream, const Call&, const Tensor& send, const Tensor& receive,
                   const std::vector<int64_t>& parts) override {
    Run(stream, {{.tensor = send, .in = true}, {.tensor = receive, .out = true}},
        [&](const std::vector<Tensor>& t) { host_->AllGather(*host_stream_, t[0], t[1], parts); });
  }

  void DoReduceScatter(Stream& stream, const Call&, const Tensor& send, const Tensor& receive,
                       const std::vector<int64_t>& parts) override {
    Run(stream, {{.tensor = send, .in = true}, {.tensor = receive, .out = true}},
        [&](const std::vector<Tensor>& t) { host_->ReduceScatter(*host_stream_, t[0], t[1], parts); });
  }

  void DoAllToAll(Stream& stream, const Call&, const Tensor& send, const std::vector<int64_t>& send_counts,
                  const Tensor& receive, const std::vector<int64_t>& receive_counts) override {
    Run(stream, {{.tensor = send, .in = true}, {.tensor = receive, .out = true}},
        [&](const std::vector<Tensor>& t) { host_->AllToAll(*host_stream_, t[0], send_counts, t[1], receive_counts); });
  }

  void DoSendReceive(Stream& stream, const Call& call, const std::vector<Transfer>& batch) override {
    std::vector<Staged> tensors;
    for (const Transfer& transfer : batch) {
      const bool send = transfer.kind == Transfer::Kind::kSend;
      tensors.push_back({.tensor = transfer.tensor, .in = send, .out = !send});
    }
    Run(stream, tensors, [&](const std::vector<Tensor>& t) {
      std::vector<Transfer> staged = batch;
      for (size_t i = 0; i < staged.size(); ++i) staged[i].tensor = t[i];
      if (call.peer >= 0) {
        host_->Message(*host_stream_, staged[0]);
      } else {
        host_->SendReceive(*host_stream_, staged);
      }
    });
  }

  void DoBroadcast(Stream& stream, const Call&, const Tensor& x, int root) override {
    Run(stream, {{.tensor = x, .in = root == rank(), .out = root != rank()}},
        [&](const std::vector<Tensor>& t) { host_->Broadcast(*host_stream_, t[0], root); });
  }

  void DoBarrier(const Call&) override { host_->Barrier(); }

  std::unique_ptr<CheckedCommunicator> DoSplit(const Call&, int color, int key) override {
    return std::make_unique<StagedCommunicator>(host_->Split(color, key), device_);
  }

  std::unique_ptr<Communicator> host_;
  Device& device_;
  std::unique_ptr<Stream> host_stream_ = MakeCpuDevice()->MakeStream("staged");
  HostBuffer staging_{"staging of transfers"};
};

}  // namespace

std::unique_ptr<Communicator> MakeStagedCommunicator(std::unique_ptr<Communicator> host, Device& device) {
  return std::make_unique<StagedCommunicator>(std::move(host), device);
}

}  // namespace longspan
