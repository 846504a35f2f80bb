// The communicator over MPI, with exactly representable numbers and ==.
#include "parallel/comm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "parallel/mpi_messages.h"

namespace longspan {
namespace {

template <typename T>
Tensor View(std::vector<T>& x) {
  return HostView(x.data(), {static_cast<int64_t>(x.size())});
}

// A value that tells rank and index.
template <typename T>
std::vector<T> Numbers(int64_t count, int rank) {
  std::vector<T> x(count);
  for (int64_t i = 0; i < count; ++i) x[i] = static_cast<T>((rank + 1) * 1000 + i % 1000);
  return x;
}

class CommTest : public testing::Test {
 protected:
  std::unique_ptr<Device> device_ = MakeCpuDevice();
  std::unique_ptr<Stream> stream_ = device_->MakeStream("comm");
  std::unique_ptr<Communicator> comm_ = MakeMpiWorld();
  int rank_ = comm_->rank();
  int size_ = comm_->size();

  // Uneven, with a zero: rank r has (r * 3) % 5 times `scale`.
  std::vector<int64_t> UnevenCounts(int64_t scale) const {
    std::vector<int64_t> counts(size_);
    for (int r = 0; r < size_; ++r) counts[r] = (r * 3) % 5 * scale;
    return counts;
  }

  template <typename T>
  void AllReduces(int64_t count) {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
      std::vector<T> x = Numbers<T>(count, rank_);
      comm_->AllReduce(*stream_, View(x), op);
      stream_->Synchronize();
      for (int64_t i = 0; i < count; ++i) {
        const int64_t sum = size_ * (size_ + 1) / 2 * 1000 + size_ * (i % 1000);
        const int64_t expected = op == ReduceOp::kSum   ? sum
                                 : op == ReduceOp::kMax ? size_ * 1000 + i % 1000
                                                        : 1000 + i % 1000;
        ASSERT_EQ(x[i], static_cast<T>(expected)) << "element " << i << " of " << count;
      }
    }
  }
};

TEST_F(CommTest, AllReduceSmallAndLarge) {
  for (int64_t count : {0, 1, 7, 4099, 100003}) {
    AllReduces<float>(count);
    AllReduces<double>(count);
    AllReduces<int32_t>(count);
    AllReduces<int64_t>(count);
  }
}

TEST_F(CommTest, AllReduceKeepsNaN) {
  for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
    for (int bad = 0; bad < size_; ++bad) {
      float x = rank_ == bad ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
      comm_->AllReduce(*stream_, HostView(&x, {1}), op);
      stream_->Synchronize();
      EXPECT_TRUE(x != x) << "NaN of rank " << bad;
    }
  }
}

// The sum of random floats depends on the order: it must be that of the ranks, in every verb and for every size.
TEST_F(CommTest, SumsInRankOrderBitForBit) {
  for (int64_t part : {3, 70001}) {
    std::vector<std::vector<float>> inputs(size_, std::vector<float>(part * size_));
    for (int r = 0; r < size_; ++r) {
      std::mt19937 random(r + 1);
      std::uniform_real_distribution<float> uniform(-1, 1);
      for (float& x : inputs[r]) x = uniform(random);
    }
    std::vector<float> expected = inputs[0];
    for (int r = 1; r < size_; ++r) {
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += inputs[r][i];
    }
    if (size_ > 2) {
      std::vector<float> backwards = inputs[size_ - 1];
      for (int r = size_ - 2; r >= 0; --r) {
        for (size_t i = 0; i < backwards.size(); ++i) backwards[i] += inputs[r][i];
      }
      ASSERT_NE(backwards, expected) << "these numbers do not tell one order from another";
    }
    std::vector<float> reduced = inputs[rank_];
    comm_->AllReduce(*stream_, View(reduced), ReduceOp::kSum);
    std::vector<float> mine(part);
    comm_->ReduceScatter(*stream_, View(inputs[rank_]), View(mine));
    stream_->Synchronize();
    EXPECT_EQ(reduced, expected);
    EXPECT_TRUE(std::equal(mine.begin(), mine.end(), expected.begin() + rank_ * part));
  }
}

TEST_F(CommTest, AllGatherEqualAndUneven) {
  for (int64_t scale : {1, 50000}) {
    for (bool uneven : {false, true}) {
      const std::vector<int64_t> counts = uneven ? UnevenCounts(scale) : std::vector<int64_t>(size_, scale);
      std::vector<int32_t> expected;
      for (int r = 0; r < size_; ++r) {
        const std::vector<int32_t> part = Numbers<int32_t>(counts[r], r);
        expected.insert(expected.end(), part.begin(), part.end());
      }
      std::vector<int32_t> send = Numbers<int32_t>(counts[rank_], rank_);
      std::vector<int32_t> apart(expected.size(), -1), in_place(expected.size(), -1);
      const int64_t own = std::accumulate(counts.begin(), counts.begin() + rank_, int64_t{0});
      std::copy(send.begin(), send.end(), in_place.begin() + own);
      const std::vector<int64_t> given = uneven ? counts : std::vector<int64_t>{};
      comm_->AllGather(*stream_, View(send), View(apart), given);
      comm_->AllGather(*stream_, View(in_place).Rows(own, counts[rank_]), View(in_place), given);
      stream_->Synchronize();
      EXPECT_EQ(apart, expected);
      EXPECT_EQ(in_place, expected);
    }
  }
}

TEST_F(CommTest, ReduceScatterEqualAndUneven) {
  // The last scale needs several rounds.
  for (const int64_t scale : {1, 5000, 600000 / size_}) {
    for (bool uneven : {false, true}) {
      const std::vector<int64_t> counts = uneven ? UnevenCounts(scale) : std::vector<int64_t>(size_, scale);
      const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
      const int64_t own = std::accumulate(counts.begin(), counts.begin() + rank_, int64_t{0});
      std::vector<double> send = Numbers<double>(total, rank_);
      std::vector<double> expected(counts[rank_]);
      for (int64_t i = 0; i < counts[rank_]; ++i) {
        expected[i] = size_ * (size_ + 1) / 2 * 1000.0 + size_ * static_cast<double>((own + i) % 1000);
      }
      std::vector<double> apart(counts[rank_]);
      const std::vector<int64_t> given = uneven ? counts : std::vector<int64_t>{};
      comm_->ReduceScatter(*stream_, View(send), View(apart), given);
      comm_->ReduceScatter(*stream_, View(send), View(send).Rows(own, counts[rank_]), given);
      stream_->Synchronize();
      EXPECT_EQ(apart, expected);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), send.begin() + own));
    }
  }
}

TEST_F(CommTest, AllToAllUnevenWithZeros) {
  // Rank r sends (r + 2q) % 4 * scale elements to rank q, self and nothing included.
  for (int64_t scale : {1, 30000}) {
    std::vector<int64_t> send_counts(size_), receive_counts(size_);
    std::vector<int64_t> send, expected;
    for (int peer = 0; peer < size_; ++peer) {
      send_counts[peer] = (rank_ + 2 * peer) % 4 * scale;
      receive_counts[peer] = (peer + 2 * rank_) % 4 * scale;
      for (int64_t i = 0; i < send_counts[peer]; ++i) send.push_back((rank_ * size_ + peer) * 1000000 + i);
      for (int64_t i = 0; i < receive_counts[peer]; ++i) expected.push_back((peer * size_ + rank_) * 1000000 + i);
    }
    std::vector<int64_t> receive(expected.size(), -1);
    comm_->AllToAll(*stream_, View(send), send_counts, View(receive), receive_counts);
    stream_->Synchronize();
    EXPECT_EQ(receive, expected);
  }
}

TEST_F(CommTest, SendReceiveKeepsTheOrderOfPairsAndSendsToSelf) {
  // Two messages to each rank, this one included, of different lengths and dtypes; the receives are posted last.
  std::vector<std::vector<float>> first(size_), first_in(size_);
  std::vector<std::vector<uint8_t>> second(size_), second_in(size_);
  std::vector<Transfer> batch;
  for (int peer = 0; peer < size_; ++peer) {
    first[peer] = std::vector<float>(rank_ + 2 * peer, static_cast<float>(100 * rank_ + peer));
    second[peer] = std::vector<uint8_t>(3 + rank_, static_cast<uint8_t>(10 * rank_ + peer));
    batch.push_back({Transfer::Kind::kSend, peer, View(first[peer])});
    batch.push_back({Transfer::Kind::kSend, peer, View(second[peer])});
  }
  for (int peer = size_ - 1; peer >= 0; --peer) {
    first_in[peer].resize(peer + 2 * rank_);
    second_in[peer].resize(3 + peer);
    batch.push_back({Transfer::Kind::kReceive, peer, View(first_in[peer])});
    batch.push_back({Transfer::Kind::kReceive, peer, View(second_in[peer])});
  }
  comm_->SendReceive(*stream_, batch);
  comm_->SendReceive(*stream_, {});
  stream_->Synchronize();
  for (int peer = 0; peer < size_; ++peer) {
    EXPECT_EQ(first_in[peer], std::vector<float>(peer + 2 * rank_, static_cast<float>(100 * peer + rank_)));
    EXPECT_EQ(second_in[peer], std::vector<uint8_t>(3 + peer, static_cast<uint8_t>(10 * peer + rank_)));
  }
}

TEST_F(CommTest, BroadcastFromEveryRoot) {
  for (int root = 0; root < size_; ++root) {
    for (int64_t count : {0, 1, 300001}) {
      std::vector<int32_t> x = rank_ == root ? Numbers<int32_t>(count, root) : std::vector<int32_t>(count, -1);
      comm_->Broadcast(*stream_, View(x), root);
      stream_->Synchronize();
      EXPECT_EQ(x, Numbers<int32_t>(count, root));
    }
  }
}

TEST_F(CommTest, SplitGroupsByColorAndOrdersByKey) {
  const auto group = comm_->Split(rank_ % 2, -rank_);
  const int members = (size_ + 1 - rank_ % 2) / 2;
  EXPECT_EQ(group->size(), members);
  EXPECT_EQ(group->rank(), members - 1 - rank_ / 2);
  std::vector<int32_t> all(members);
  std::vector<int32_t> mine = {rank_};
  group->AllGather(*stream_, View(mine), View(all));
  stream_->Synchronize();
  group->Barrier();
  EXPECT_TRUE(std::is_sorted(all.rbegin(), all.rend()));
  for (int32_t member : all) EXPECT_EQ(member % 2, rank_ % 2);
}

TEST_F(CommTest, SelfIsAGroupOfOneBesideTheWorld) {
  const auto self = MakeMpiSelf();
  EXPECT_EQ(self->rank(), 0);
  EXPECT_EQ(self->size(), 1);
  std::vector<float> x = {1, 2, 3}, y(3), z(3), world = {static_cast<float>(rank_)};
  self->AllReduce(*stream_, View(x), ReduceOp::kSum);
  self->AllGather(*stream_, View(x), View(y));
  self->ReduceScatter(*stream_, View(y), View(z));
  self->AllToAll(*stream_, View(z), {3}, View(y), {3});
  self->Broadcast(*stream_, View(y), 0);
  comm_->AllReduce(*stream_, View(world), ReduceOp::kMax);
  stream_->Synchronize();
  self->Barrier();
  EXPECT_EQ(y, (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(world[0], size_ - 1);
}

// Messages longer than MPI can count travel in pieces; here with pieces of a few bytes.
TEST_F(CommTest, MessagesInPieces) {
  const MpiCall call = {"test.pieces", 1, rank_, size_};
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

TEST_F(CommTest, AMessageOfAnotherLengthIsAnErrorThatNamesTheCall) {
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

TEST_F(CommTest, RefusesWrongTensorsByName) {
  std::vector<float> x(6), all(6 * size_);
  std::vector<int32_t> integers(6);
  std::vector<uint16_t> half(6);
  Tensor strided = HostView(x.data(), {3, 2});
  strided.stride = {1, 3};
  Tensor device = View(x);
  device.device = DeviceKind::kGpu;
  const auto expect = [&](const char* text, const std::function<void()>& task) {
    const std::string message = MessageOf(task);
    EXPECT_NE(message.find(text), std::string::npos) << message;
  };
  expect("comm.all_reduce: x [3,2] is not contiguous", [&] { comm_->AllReduce(*stream_, strided, ReduceOp::kSum); });
  expect("comm.all_reduce: x is on gpu", [&] { comm_->AllReduce(*stream_, device, ReduceOp::kSum); });
  expect("comm.all_reduce: cannot reduce U16", [&] { comm_->AllReduce(*stream_, View(half), ReduceOp::kSum); });
  expect("send holds I32, receive holds F32", [&] { comm_->AllGather(*stream_, View(integers), View(all)); });
  expect("its counts add up to", [&] { comm_->AllGather(*stream_, View(x), View(all).Rows(0, 5)); });
  expect("comm.reduce_scatter: send has", [&] {
    comm_->ReduceScatter(*stream_, View(all), View(x), {1, 2, 3, 4, 5, 6, 7});
  });
  expect("peer 99 is not a rank", [&] { comm_->SendReceive(*stream_, {{Transfer::Kind::kSend, 99, View(x)}}); });
  expect("root -1 is not a rank", [&] { comm_->Broadcast(*stream_, View(x), -1); });
}

}  // namespace
}  // namespace longspan
