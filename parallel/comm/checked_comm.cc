#include "parallel/comm/checked_comm.h"

#include <numeric>

#include "parallel/comm/rank_order.h"

namespace longspan {
namespace {

void CheckReducible(const CommCall& call, const Tensor& x) {
  LS_CHECK(CanReduce(x.dtype), "{}: cannot reduce {}, expected F32, F64, BF16, I32 or I64", call.Text(),
           DTypeName(x.dtype));
}

void CheckCounts(const CommCall& call, const char* name, const Tensor& x, const std::vector<int64_t>& counts) {
  LS_CHECK(static_cast<int>(counts.size()) == call.size, "{}: {} has {} counts, expected one for each of {} ranks",
           call.Text(), name, counts.size(), call.size);
  for (int64_t count : counts) LS_CHECK(count >= 0, "{}: {} has the negative count {}", call.Text(), name, count);
  LS_CHECK(x.size() == Sum(counts), "{}: {} {} has {} elements, its counts add up to {}", call.Text(), name,
           x.shape.ToString(), x.size(), Sum(counts));
}

// FNV-1a.
uint32_t GroupOf(uint32_t whole, int64_t sequence, int color) {
  uint32_t hash = 2166136261U;
  for (const uint64_t part : {uint64_t{whole}, static_cast<uint64_t>(sequence), static_cast<uint64_t>(color)}) {
    for (int shift = 0; shift < 64; shift += 8) hash = (hash ^ static_cast<uint8_t>(part >> shift)) * 16777619U;
  }
  return hash;
}

}  // namespace

std::string CommCall::Text() const {
  return fmt::format("{}, call {} of rank {}/{} in its group{}", name, sequence, rank, size,
                     peer < 0 ? "" : fmt::format(" with rank {}", peer));
}

int64_t Sum(const std::vector<int64_t>& counts) { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }

std::vector<int64_t> Begins(const std::vector<int64_t>& counts) {
  std::vector<int64_t> begins(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), begins.begin(), int64_t{0});
  return begins;
}

std::vector<int64_t> EvenParts(int64_t count, int size) {
  std::vector<int64_t> parts(size, count / size);
  for (int64_t r = 0; r < count % size; ++r) ++parts[r];
  return parts;
}

void CheckedCommunicator::CheckTensor(const Call& call, const char* name, const Tensor& x) const {
  LS_CHECK(x.device == memory_, "{}: {} is on {}, this communicator works on memory of the {}", call.Text(), name,
           DeviceName(x.device), DeviceName(memory_));
  LS_CHECK(x.contiguous(), "{}: {} {} is not contiguous", call.Text(), name, x.shape.ToString());
  LS_CHECK(x.data != nullptr || x.size() == 0, "{}: {} {} is null", call.Text(), name, x.shape.ToString());
}

void CheckedCommunicator::CheckPair(const Call& call, const Tensor& send, const Tensor& receive) const {
  CheckTensor(call, "send", send);
  CheckTensor(call, "receive", receive);
  LS_CHECK(send.dtype == receive.dtype, "{}: send holds {}, receive holds {}", call.Text(), DTypeName(send.dtype),
           DTypeName(receive.dtype));
}

// And counts what it brings.
void CheckedCommunicator::CheckMessage(Call* call, const Transfer& transfer) const {
  const bool send = transfer.kind == Transfer::Kind::kSend;
  CheckTensor(*call, send ? "sent tensor" : "received tensor", transfer.tensor);
  LS_CHECK(transfer.peer >= 0 && transfer.peer < size_, "{}: peer {} is not a rank of this group of {}", call->Text(),
           transfer.peer, size_);
  if (!send && transfer.peer != rank_) call->received += static_cast<double>(transfer.tensor.bytes());
}

void CheckedCommunicator::JoinRecorder() {
  if (joined_ || size_ == 1 || !recorded()) return;
  joined_ = true;
  recorder_group_ = FlightRecorder::Get().AddGroup(group_, size_, rank_, memory_ == DeviceKind::kGpu);
}

int64_t CheckedCommunicator::RecordMaking(const char* name) {
  JoinRecorder();
  return FlightRecorder::Get().Enqueue(recorder_group_, {name, 0, 0, 0, DType::kU8});
}

void CheckedCommunicator::Record(Call* call, DType dtype, int64_t common) {
  JoinRecorder();
  call->record = FlightRecorder::Get().Enqueue(
      recorder_group_, {call->name, call->sequence, static_cast<int64_t>(call->received), common, dtype, call->peer});
}

void CheckedCommunicator::AllReduce(Stream& stream, const Tensor& x, ReduceOp op) {
  Call call = NextCall("comm.all_reduce");
  CheckTensor(call, "x", x);
  CheckReducible(call, x);
  const bool small = x.bytes() <= kSmallReduceBytes;
  call.received = static_cast<double>(x.bytes()) * (size_ - 1) * (small ? 1.0 : 2.0 / size_);
  Record(&call, x.dtype, x.bytes());
  DoAllReduce(stream, call, x, op);
}

void CheckedCommunicator::AllGather(Stream& stream, const Tensor& send, const Tensor& receive,
                                    const std::vector<int64_t>& counts) {
  Call call = NextCall("comm.all_gather");
  CheckPair(call, send, receive);
  const std::vector<int64_t> parts = counts.empty() ? std::vector<int64_t>(size_, send.size()) : counts;
  CheckCounts(call, "receive", receive, parts);
  LS_CHECK(send.size() == parts[rank_], "{}: send {} has {} elements, expected {}", call.Text(), send.shape.ToString(),
           send.size(), parts[rank_]);
  call.received = static_cast<double>(receive.bytes() - send.bytes());
  Record(&call, send.dtype, receive.bytes());
  DoAllGather(stream, call, send, receive, parts);
}

void CheckedCommunicator::ReduceScatter(Stream& stream, const Tensor& send, const Tensor& receive,
                                        const std::vector<int64_t>& counts) {
  Call call = NextCall("comm.reduce_scatter");
  CheckPair(call, send, receive);
  CheckReducible(call, send);
  const std::vector<int64_t> parts = counts.empty() ? std::vector<int64_t>(size_, receive.size()) : counts;
  CheckCounts(call, "send", send, parts);
  LS_CHECK(receive.size() == parts[rank_], "{}: receive {} has {} elements, expected {}", call.Text(),
           receive.shape.ToString(), receive.size(), parts[rank_]);
  call.received = static_cast<double>(receive.bytes()) * (size_ - 1);
  Record(&call, send.dtype, send.bytes());
  DoReduceScatter(stream, call, send, receive, parts);
}

void CheckedCommunicator::AllToAll(Stream& stream, const Tensor& send, const std::vector<int64_t>& send_counts,
                                   const Tensor& receive, const std::vector<int64_t>& receive_counts) {
  Call call = NextCall("comm.all_to_all");
  CheckPair(call, send, receive);
  CheckCounts(call, "send", send, send_counts);
  CheckCounts(call, "receive", receive, receive_counts);
  LS_CHECK(send_counts[rank_] == receive_counts[rank_], "{}: this rank sends itself {} elements and expects {}",
           call.Text(), send_counts[rank_], receive_counts[rank_]);
  call.received = static_cast<double>((receive.size() - receive_counts[rank_]) * DTypeSize(receive.dtype));
  Record(&call, send.dtype, -1);
  DoAllToAll(stream, call, send, send_counts, receive, receive_counts);
}

void CheckedCommunicator::SendReceive(Stream& stream, const std::vector<Transfer>& batch) {
  Call call = NextCall("comm.send_receive");
  for (const Transfer& transfer : batch) CheckMessage(&call, transfer);
  Record(&call, DType::kU8, -1);  // which tensors, and whether any, is each rank's own affair
  DoSendReceive(stream, call, batch);
}

void CheckedCommunicator::Message(Stream& stream, const Transfer& transfer) {
  Call call{{"comm.message", ++messages_[transfer.peer], rank_, size_, transfer.peer}, group_};
  CheckMessage(&call, transfer);
  Record(&call, transfer.tensor.dtype, transfer.tensor.bytes());
  DoSendReceive(stream, call, {transfer});
}

void CheckedCommunicator::Broadcast(Stream& stream, const Tensor& x, int root) {
  Call call = NextCall("comm.broadcast");
  CheckTensor(call, "x", x);
  LS_CHECK(root >= 0 && root < size_, "{}: root {} is not a rank of this group of {}", call.Text(), root, size_);
  call.received = rank_ == root ? 0.0 : static_cast<double>(x.bytes());
  Record(&call, x.dtype, x.bytes());
  DoBroadcast(stream, call, x, root);
}

void CheckedCommunicator::Barrier() {
  Call call = NextCall("comm.barrier");
  Record(&call, DType::kU8, 0);
  const Transferring transferring(call.record);
  DoBarrier(call);
}

std::unique_ptr<Communicator> CheckedCommunicator::Split(int color, int key) {
  Call call = NextCall("comm.split");
  LS_CHECK(color >= 0, "{}: color {} is negative", call.Text(), color);
  Record(&call, DType::kU8, 0);
  const Transferring transferring(call.record);
  auto part = DoSplit(call, color, key);
  part->group_ = GroupOf(group_, call.sequence, color);
  part->JoinRecorder();  // though it may never come to its first transfer
  return part;
}

std::vector<int> CheckedCommunicator::Peers() const {
  std::vector<int> peers;
  for (int step = 1; step < size_; ++step) peers.push_back((rank_ + step) % size_);
  return peers;
}

}  // namespace longspan
