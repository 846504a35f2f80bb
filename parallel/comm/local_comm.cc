#include "parallel/comm/local_comm.h"

#include <vector>

#include "parallel/comm/checked_comm.h"
#include "runtime/error.h"

namespace longspan {
namespace {

class LocalCommunicator final : public CheckedCommunicator {
 public:
  LocalCommunicator(Device& device, int size) : CheckedCommunicator(device.kind(), 0, size), device_(device) {}

 private:
  void RequireAlone(const Call& call) const {
    LS_CHECK(size() == 1, "{}: a group of {} ranks that is only planned transfers nothing", call.Text(), size());
  }
  void Copy(Stream& stream, const Call& call, const Tensor& from, const Tensor& to) {
    RequireAlone(call);
    if (to.data != from.data && to.size() > 0)
      device_.Copy(stream, to.Reshape({to.size()}), from.Reshape({from.size()}));
  }

  void DoAllReduce(Stream&, const Call& call, const Tensor&, ReduceOp) override { RequireAlone(call); }
  void DoAllGather(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                   const std::vector<int64_t>&) override {
    Copy(stream, call, send, receive);
  }
  void DoReduceScatter(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                       const std::vector<int64_t>&) override {
    Copy(stream, call, send, receive);
  }
  void DoAllToAll(Stream& stream, const Call& call, const Tensor& send, const std::vector<int64_t>&,
                  const Tensor& receive, const std::vector<int64_t>&) override {
    Copy(stream, call, send, receive);
  }
  // To itself: the first send meets the first receive, and so on.
  void DoSendReceive(Stream& stream, const Call& call, const std::vector<Transfer>& batch) override {
    RequireAlone(call);
    std::vector<Tensor> sent, received;
    for (const Transfer& transfer : batch) {
      (transfer.kind == Transfer::Kind::kSend ? sent : received).push_back(transfer.tensor);
    }
    LS_CHECK(sent.size() == received.size(), "{}: {} messages to itself, {} awaited", call.Text(), sent.size(),
             received.size());
    for (size_t i = 0; i < sent.size(); ++i) Copy(stream, call, sent[i], received[i]);
  }
  void DoBroadcast(Stream&, const Call& call, const Tensor&, int) override { RequireAlone(call); }
  void DoBarrier(const Call& call) override { RequireAlone(call); }
  std::unique_ptr<CheckedCommunicator> DoSplit(const Call& call, int, int) override {
    RequireAlone(call);
    return std::make_unique<LocalCommunicator>(device_, 1);
  }

  Device& device_;
};

}  // namespace

std::unique_ptr<Communicator> MakeLocalCommunicator(Device& device, int64_t size) {
  return std::make_unique<LocalCommunicator>(device, static_cast<int>(size));
}

}  // namespace longspan
