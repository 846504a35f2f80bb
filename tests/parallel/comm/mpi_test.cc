// What only the communicator over MPI has: messages in pieces, and errors that name the call.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/comm.h"
#include "parallel/comm/mpi_messages.h"

namespace longspan {
namespace {

template <typename T>
Tensor View(std::vector<T>& x) {
  return HostView(x.data(), {static_cast<int64_t>(x.size())});
}

class MpiTest : public testing::Test {
 protected:
  std::unique_ptr<Device> device_ = MakeCpuDevice();
  std::unique_ptr<Stream> stream_ = device_->MakeStream("comm");
  std::unique_ptr<Communicator> comm_ = MakeMpiWorld();
  int rank_ = comm_->rank();
  int size_ = comm_->size();
};

// Messages longer than MPI can count travel in pieces; here with pieces of a few bytes.
TEST_F(MpiTest, MessagesInPieces) {
  const CommCall call = {"test.pieces", 1, rank_, size_};
  for (int64_t piece : {1, 7, 64}) {
    for (int64_t bytes : {0, 1, 7, 14, 100}) {
      MpiMessages messages(MPI_COMM_WORLD, call, piece);
      std::vector<std::vector<uint8_t>> send(size_), receive(size_);
      for (int peer = 0; peer < size_; ++peer) {
        for (int64_t i = 0; i < bytes; ++i) send[peer].push_back(static_cast<uint8_t>(16 * rank_ + peer + i));
        receive[peer].resize(bytes);
        messages.Send(peer, send[peer].data(), bytes);
        messages.Receive(peer, receive[peer].data(), bytes);
      }
      messages.Wait();
      for (int peer = 0; peer < size_; ++peer) {
        for (int64_t i = 0; i < bytes; ++i) {
          ASSERT_EQ(receive[peer][i], static_cast<uint8_t>(16 * peer + rank_ + i)) << piece << ' ' << bytes;
        }
      }
    }
  }
}

std::string MessageOf(const std::function<void()>& task) {
  try {
    task();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(MpiTest, AMessageOfAnotherLengthIsAnErrorThatNamesTheCall) {
  const int next = (rank_ + 1) % size_, previous = (rank_ + size_ - 1) % size_;
  std::vector<uint8_t> send(8), longer(12), shorter(4);
  const auto transfer = [&](std::vector<uint8_t>& receive) {
    return MessageOf([&] {
      comm_->SendReceive(
          *stream_, {{Transfer::Kind::kSend, next, View(send)}, {Transfer::Kind::kReceive, previous, View(receive)}});
      stream_->Synchronize();
    });
  };
  const std::string found = transfer(longer);
  EXPECT_NE(found.find("comm.send_receive, call 1"), std::string::npos) << found;
  EXPECT_NE(found.find(fmt::format("expected 12 bytes from rank {}, found 8", previous)), std::string::npos) << found;
  const std::string truncated = transfer(shorter);
  EXPECT_NE(truncated.find("comm.send_receive, call 2"), std::string::npos) << truncated;
  EXPECT_NE(truncated.find("TRUNCATE"), std::string::npos) << truncated;
}

TEST_F(MpiTest, RefusesWrongTensorsByName) {
  std::vector<float> x(6), all(6 * size_);
  std::vector<int32_t> integers(6);
  std::vector<uint16_t> half(6);
  Tensor strided = HostView(x.data(), {3, 2});
  strided.stride = {1, 3};
  Tensor device = View(x);
  device.device = DeviceKind::kGpu;
  int64_t calls = 0;
  const auto expect = [&](const char* name, const char* text, const std::function<void()>& task) {
    const std::string expected =
        fmt::format("comm.{}, call {} of rank {}/{} in its group: {}", name, ++calls, rank_, size_, text);
    const std::string message = MessageOf(task);
    EXPECT_NE(message.find(expected), std::string::npos) << message << "\nexpected " << expected;
  };
  expect("all_reduce", "x [3,2] is not contiguous", [&] { comm_->AllReduce(*stream_, strided, ReduceOp::kSum); });
  expect("all_reduce", "x is on gpu", [&] { comm_->AllReduce(*stream_, device, ReduceOp::kSum); });
  expect("all_reduce", "cannot reduce U16", [&] { comm_->AllReduce(*stream_, View(half), ReduceOp::kSum); });
  expect("all_gather", "send holds I32, receive holds F32",
         [&] { comm_->AllGather(*stream_, View(integers), View(all)); });
  expect("all_gather", "receive [5] has 5 elements, its counts add up to",
         [&] { comm_->AllGather(*stream_, View(x), View(all).Rows(0, 5)); });
  expect("reduce_scatter", "send has", [&] {
    comm_->ReduceScatter(*stream_, View(all), View(x), {1, 2, 3, 4, 5, 6, 7});
  });
  expect("send_receive", "peer 99 is not a rank", [&] {
    comm_->SendReceive(*stream_, {{Transfer::Kind::kSend, 99, View(x)}});
  });
  expect("broadcast", "root -1 is not a rank", [&] { comm_->Broadcast(*stream_, View(x), -1); });
}

}  // namespace
}  // namespace longspan
