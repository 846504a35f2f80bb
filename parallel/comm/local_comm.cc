#include "parallel/comm/local_comm.h"

#include <algorithm>
#include <vector>

#include "parallel/comm/checked_comm.h"
#include "parallel/comm/transfer_memory.h"
#include "runtime/error.h"
#include "runtime/planned_device.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

class LocalCommunicator final : public CheckedCommunicator {
 public:
  LocalCommunicator(Device& device, int size, int rank, Transport transport)
      : CheckedCommunicator(device.kind(), rank, size), device_(device), staged_(transport == Transport::kStaged) {}
  std::string transport() const override { return "none"; }

 private:
  bool recorded() const override { return false; }
  // False in a planned group, whose call this counts.
  bool Alone(Stream& stream, const Call& call) const {
    if (size() == 1) return true;
    LS_CHECK(stream.planned(), "{}: a group of {} ranks that is only planned transfers nothing", call.Text(), size());
    Launch(stream, call.name, {0, call.received}, nullptr);
    return false;
  }
  void Copy(Stream& stream, const Tensor& from, const Tensor& to) {
    if (to.data != from.data && to.size() > 0)
      device_.Copy(stream, to.Reshape({to.size()}), from.Reshape({from.size()}));
  }

  // Over NCCL, where groups of all ranks share a communicator.
  void PlanRounds(Stream& stream, DType dtype, int64_t longest) const {
    if (size() == 1 || longest == 0 || staged_) return;
    PlanScratch(stream, fmt::format("transfers of {} ranks", size()), ReduceRounds(longest, dtype, size()).bytes);
  }

  void DoAllReduce(Stream& stream, const Call& call, const Tensor& x, ReduceOp) override {
    PlanRounds(stream, x.dtype, x.bytes() <= kSmallReduceBytes ? x.size() : CeilDiv(x.size(), size()));
    Alone(stream, call);
  }
  void DoAllGather(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                   const std::vector<int64_t>&) override {
    if (Alone(stream, call)) Copy(stream, send, receive);
  }
  void DoReduceScatter(Stream& stream, const Call& call, const Tensor& send, const Tensor& receive,
                       const std::vector<int64_t>& parts) override {
    PlanRounds(stream, send.dtype, *std::max_element(parts.begin(), parts.end()));
    if (Alone(stream, call)) Copy(stream, send, receive);
  }
  void DoAllToAll(Stream& stream, const Call& call, const Tensor& send, const std::vector<int64_t>&,
                  const Tensor& receive, const std::vector<int64_t>&) override {
    if (Alone(stream, call)) Copy(stream, send, receive);
  }
  // To itself: the first send meets the first receive, and so on.
  void DoSendReceive(Stream& stream, const Call& call, const std::vector<Transfer>& batch) override {
    if (!Alone(stream, call)) return;
    std::vector<Tensor> sent, received;
    for (const Transfer& transfer : batch) {
      (transfer.kind == Transfer::Kind::kSend ? sent : received).push_back(transfer.tensor);
    }
    LS_CHECK(sent.size() == received.size(), "{}: {} messages to itself, {} awaited", call.Text(), sent.size(),
             received.size());
    for (size_t i = 0; i < sent.size(); ++i) Copy(stream, sent[i], received[i]);
  }
  void DoBroadcast(Stream& stream, const Call& call, const Tensor&, int) override { Alone(stream, call); }
  void DoBarrier(const Call& call) override { RequireNoneBesides(call); }
  std::unique_ptr<CheckedCommunicator> DoSplit(const Call& call, int, int) override {
    RequireNoneBesides(call);
    return std::make_unique<LocalCommunicator>(device_, 1, 0, Transport::kAuto);
  }

  void RequireNoneBesides(const Call& call) const {
    LS_CHECK(size() == 1, "{}: a group of {} ranks that is only planned has no other rank", call.Text(), size());
  }

  Device& device_;
  const bool staged_;
};

}  // namespace

std::unique_ptr<Communicator> MakeLocalCommunicator(Device& device, int64_t size, int64_t rank, Transport transport) {
  return std::make_unique<LocalCommunicator>(device, static_cast<int>(size), static_cast<int>(rank), transport);
}

}  // namespace longspan
