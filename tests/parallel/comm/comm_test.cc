// Every verb of the communicator wherever it runs (places.h), with exactly representable numbers and ==.
#include "parallel/comm/comm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "parallel/comm/mesh.h"
#include "tests/parallel/places.h"

namespace longspan {
namespace {

using test::Machine;
using test::Place;
using test::Placed;

// A value that tells rank and index.
template <typename T>
std::vector<T> Numbers(int64_t count, int rank) {
  std::vector<T> x(count);
  for (int64_t i = 0; i < count; ++i) x[i] = static_cast<T>((rank + 1) * 1000 + i % 1000);
  return x;
}

class CommTest : public testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    if (!test::CanRun()) GTEST_SKIP() << "no GPU";
    const Machine& machine = test::MachineAt(GetParam());
    SetCpuStreamMode(GetParam().reorder == 0 ? CpuStreamMode::kImmediate : CpuStreamMode::kReorder,
                     GetParam().reorder * 100 + machine.world->rank());
    device_ = machine.device.get();
    comm_ = machine.world.get();
    stream_ = device_->MakeStream("comm");
    rank_ = comm_->rank();
    size_ = comm_->size();
  }
  void TearDown() override { SetCpuStreamMode(CpuStreamMode::kImmediate); }

  template <typename T>
  Placed<T> Put(const std::vector<T>& values) {
    return Placed<T>(*device_, *stream_, values);
  }

  Device* device_ = nullptr;
  Communicator* comm_ = nullptr;
  std::unique_ptr<Stream> stream_;
  int rank_ = 0, size_ = 1;

  // Uneven, with a zero: rank r has (r * 3) % 5 times `scale`.
  std::vector<int64_t> UnevenCounts(int64_t scale) const {
    std::vector<int64_t> counts(size_);
    for (int r = 0; r < size_; ++r) counts[r] = (r * 3) % 5 * scale;
    return counts;
  }

  template <typename T>
  void AllReduces(int64_t count) {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
      const Placed<T> placed = Put(Numbers<T>(count, rank_));
      comm_->AllReduce(*stream_, placed.view(), op);
      const std::vector<T> x = placed.Values();
      for (int64_t i = 0; i < count; ++i) {
        const int64_t sum = size_ * (size_ + 1) / 2 * 1000 + size_ * (i % 1000);
        const int64_t expected = op == ReduceOp::kSum ? sum : size_ * 1000 + i % 1000;
        ASSERT_EQ(x[i], static_cast<T>(expected)) << "element " << i << " of " << count;
      }
    }
  }
};

TEST_P(CommTest, AllReduceSmallAndLarge) {
  for (int64_t count : {0, 1, 7, 4099, 100003}) {
    AllReduces<float>(count);
    AllReduces<double>(count);
    AllReduces<int32_t>(count);
    AllReduces<int64_t>(count);
  }
}

TEST_P(CommTest, AllReduceKeepsNaN) {
  for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
    for (int bad = 0; bad < size_; ++bad) {
      const auto placed = Put<float>({rank_ == bad ? std::numeric_limits<float>::quiet_NaN() : 1.0f});
      comm_->AllReduce(*stream_, placed.view(), op);
      const float x = placed.Values()[0];
      EXPECT_TRUE(x != x) << "NaN of rank " << bad;
    }
  }
}

// The sum of random floats depends on the order: it must be that of the ranks, in every verb and for every size.
TEST_P(CommTest, SumsInRankOrderBitForBit) {
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
    const auto reduced = Put(inputs[rank_]), send = Put(inputs[rank_]), mine = Put(std::vector<float>(part));
    comm_->AllReduce(*stream_, reduced.view(), ReduceOp::kSum);
    comm_->ReduceScatter(*stream_, send.view(), mine.view());
    EXPECT_EQ(reduced.Values(), expected);
    const std::vector<float> found = mine.Values();
    EXPECT_TRUE(std::equal(found.begin(), found.end(), expected.begin() + rank_ * part));
  }
}

// 256 + 1 + 1 in BF16 is 256 after every step; added in F32 and rounded once it is 258.
TEST_P(CommTest, SumsOfBf16AreRoundedOnce) {
  const auto bits = [](float x) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); };  // exact numbers
  const int64_t sum = 256 + size_ - 1;  // between 256 and 512 every second number is BF16, ties go to multiples of 4
  const auto rounded = static_cast<float>(sum % 2 == 0 ? sum : sum % 4 == 1 ? sum - 1 : sum + 1);
  for (int64_t part : {5, 40000}) {
    const std::vector<uint16_t> values(part * size_, bits(rank_ == 0 ? 256.0f : 1.0f));
    const Placed<uint16_t> reduced(*device_, *stream_, values, DType::kBf16);
    const Placed<uint16_t> mine(*device_, *stream_, std::vector<uint16_t>(part), DType::kBf16);
    comm_->ReduceScatter(*stream_, reduced.view(), mine.view());
    comm_->AllReduce(*stream_, reduced.view(), ReduceOp::kSum);
    EXPECT_EQ(mine.Values(), std::vector<uint16_t>(part, bits(rounded)));
    EXPECT_EQ(reduced.Values(), std::vector<uint16_t>(part * size_, bits(rounded)));
  }
}

// Longer than one round of a reduce-scatter: 4 MiB on the CPU, 128 MiB on a GPU.
TEST_P(CommTest, ReduceScatterInSeveralRounds) {
  const bool gpu = device_->kind() == DeviceKind::kGpu;
  if (gpu && size_ > GpuCount()) GTEST_SKIP() << "slow where ranks share a GPU";
  const int64_t part = (gpu ? 40'000'003 : 2'000'003) / size_;
  const auto send = Put(Numbers<float>(part * size_, rank_)), mine = Put(std::vector<float>(part));
  comm_->ReduceScatter(*stream_, send.view(), mine.view());
  const std::vector<float> found = mine.Values();
  for (int64_t i = 0; i < part; ++i) {
    const int64_t expected = size_ * (size_ + 1) / 2 * 1000 + size_ * ((rank_ * part + i) % 1000);
    ASSERT_EQ(found[i], static_cast<float>(expected)) << "element " << i;
  }
}

TEST_P(CommTest, AllGatherEqualAndUneven) {
  for (int64_t scale : {1, 50000}) {
    for (bool uneven : {false, true}) {
      const std::vector<int64_t> counts = uneven ? UnevenCounts(scale) : std::vector<int64_t>(size_, scale);
      std::vector<int32_t> expected;
      for (int r = 0; r < size_; ++r) {
        const std::vector<int32_t> part = Numbers<int32_t>(counts[r], r);
        expected.insert(expected.end(), part.begin(), part.end());
      }
      const std::vector<int32_t> part = Numbers<int32_t>(counts[rank_], rank_);
      std::vector<int32_t> empty(expected.size(), -1);
      const auto send = Put(part), apart = Put(empty);
      const int64_t own = std::accumulate(counts.begin(), counts.begin() + rank_, int64_t{0});
      std::copy(part.begin(), part.end(), empty.begin() + own);
      const auto in_place = Put(empty);
      const std::vector<int64_t> given = uneven ? counts : std::vector<int64_t>{};
      comm_->AllGather(*stream_, send.view(), apart.view(), given);
      comm_->AllGather(*stream_, in_place.view().Rows(own, counts[rank_]), in_place.view(), given);
      EXPECT_EQ(apart.Values(), expected);
      EXPECT_EQ(in_place.Values(), expected);
    }
  }
}

TEST_P(CommTest, ReduceScatterEqualAndUneven) {
  // The last scale needs several rounds.
  for (const int64_t scale : {1, 5000, 600000 / size_}) {
    for (bool uneven : {false, true}) {
      const std::vector<int64_t> counts = uneven ? UnevenCounts(scale) : std::vector<int64_t>(size_, scale);
      const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
      const int64_t own = std::accumulate(counts.begin(), counts.begin() + rank_, int64_t{0});
      const auto send = Put(Numbers<double>(total, rank_));
      std::vector<double> expected(counts[rank_]);
      for (int64_t i = 0; i < counts[rank_]; ++i) {
        expected[i] = size_ * (size_ + 1) / 2 * 1000.0 + size_ * static_cast<double>((own + i) % 1000);
      }
      const auto apart = Put(std::vector<double>(counts[rank_]));
      const std::vector<int64_t> given = uneven ? counts : std::vector<int64_t>{};
      comm_->ReduceScatter(*stream_, send.view(), apart.view(), given);
      comm_->ReduceScatter(*stream_, send.view(), send.view().Rows(own, counts[rank_]), given);
      EXPECT_EQ(apart.Values(), expected);
      const std::vector<double> in_place = send.Values();
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), in_place.begin() + own));
    }
  }
}

TEST_P(CommTest, AllToAllUnevenWithZeros) {
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
    const auto sent = Put(send), received = Put(std::vector<int64_t>(expected.size(), -1));
    comm_->AllToAll(*stream_, sent.view(), send_counts, received.view(), receive_counts);
    EXPECT_EQ(received.Values(), expected);
  }
}

TEST_P(CommTest, SendReceiveKeepsTheOrderOfPairsAndSendsToSelf) {
  // Two messages to each rank, this one included, of different lengths and dtypes; the receives are posted last.
  std::vector<Placed<float>> first, first_in;
  std::vector<Placed<uint8_t>> second, second_in;
  for (int peer = 0; peer < size_; ++peer) {
    first.push_back(Put(std::vector<float>(rank_ + 2 * peer, static_cast<float>(100 * rank_ + peer))));
    second.push_back(Put(std::vector<uint8_t>(3 + rank_, static_cast<uint8_t>(10 * rank_ + peer))));
    first_in.push_back(Put(std::vector<float>(peer + 2 * rank_)));
    second_in.push_back(Put(std::vector<uint8_t>(3 + peer)));
  }
  std::vector<Transfer> batch;
  for (int peer = 0; peer < size_; ++peer) {
    batch.push_back({Transfer::Kind::kSend, peer, first[peer].view()});
    batch.push_back({Transfer::Kind::kSend, peer, second[peer].view()});
  }
  for (int peer = size_ - 1; peer >= 0; --peer) {
    batch.push_back({Transfer::Kind::kReceive, peer, first_in[peer].view()});
    batch.push_back({Transfer::Kind::kReceive, peer, second_in[peer].view()});
  }
  comm_->SendReceive(*stream_, batch);
  comm_->SendReceive(*stream_, {});
  for (int peer = 0; peer < size_; ++peer) {
    EXPECT_EQ(first_in[peer].Values(), std::vector<float>(peer + 2 * rank_, static_cast<float>(100 * peer + rank_)));
    EXPECT_EQ(second_in[peer].Values(), std::vector<uint8_t>(3 + peer, static_cast<uint8_t>(10 * peer + rank_)));
  }
}

TEST_P(CommTest, MessagesOfPairs) {
  // Each rank but the last to the next, more of them the higher: others know nothing of them.
  for (int i = 0; i < size_; ++i) {
    const auto out = Put(Numbers<float>(1001 + i, rank_)), in = Put(std::vector<float>(1001 + i));
    if (i < rank_) comm_->Message(*stream_, {Transfer::Kind::kReceive, rank_ - 1, in.view()});
    if (i <= rank_ && rank_ + 1 < size_) comm_->Message(*stream_, {Transfer::Kind::kSend, rank_ + 1, out.view()});
    EXPECT_EQ(in.Values(), i < rank_ ? Numbers<float>(1001 + i, rank_ - 1) : std::vector<float>(1001 + i));
  }
  AllReduces<float>(1);
  // A group's number comes of the calls so far.
  const auto group = comm_->Split(0, rank_);
  std::vector<int32_t> groups(size_);
  const auto own = Put<int32_t>({static_cast<int32_t>(group->group())}), all = Put(groups);
  comm_->AllGather(*stream_, own.view(), all.view());
  groups = all.Values();
  EXPECT_EQ(std::count(groups.begin(), groups.end(), groups[0]), size_);
}

// One behind another without a wait of the host, at once and as a graph by turns: none may meet what another left, nor
// overtake it. Some are larger than what a rank stages at a time.
TEST_P(CommTest, ManyInARowAndInGraphs) {
  const int64_t large = (size_ > 1 && device_->kind() == DeviceKind::kGpu ? int64_t{80} << 20 : 40000) / 4;
  const int next = (rank_ + 1) % size_, previous = (rank_ + size_ - 1) % size_;
  const auto gathered = Put(std::vector<int32_t>(size_ * 5)), parts = Put(std::vector<int32_t>(size_, rank_ + 1));
  const auto part = Put<int32_t>({0}), most = Put<int32_t>({rank_}), token = Put<int32_t>({rank_ * 1000, 0});
  const auto sent = Put(std::vector<int32_t>(large, rank_)), received = Put(std::vector<int32_t>(large, -1));
  const auto round = [&] {
    // Each takes what the one before it made.
    comm_->AllGather(*stream_, sent.view().Rows(0, 5), gathered.view());
    comm_->ReduceScatter(*stream_, parts.view(), part.view());
    comm_->AllReduce(*stream_, most.view(), ReduceOp::kMax);
    comm_->SendReceive(*stream_, {{Transfer::Kind::kSend, next, token.view().Rows(0, 1)},
                                  {Transfer::Kind::kReceive, previous, token.view().Rows(1, 1)},
                                  {Transfer::Kind::kSend, next, sent.view()},
                                  {Transfer::Kind::kReceive, previous, received.view()}});
    comm_->SendReceive(*stream_, {{Transfer::Kind::kSend, next, token.view().Rows(1, 1)},
                                  {Transfer::Kind::kReceive, previous, token.view().Rows(0, 1)}});
  };
  round();
  stream_->Synchronize();
  int rounds = 1;
  if (!comm_->host_waits()) {
    const auto graph = device_->Capture(*stream_, round);
    for (int i = 0; i < 6; ++i) {
      graph->Launch();
      graph->Launch();
      round();
      rounds += 3;
    }
  }
  // A token goes two ranks on in a round.
  const int from = ((rank_ - 2 * rounds) % size_ + size_) % size_;
  EXPECT_EQ(token.Values()[0], from * 1000);
  EXPECT_EQ(part.Values()[0], size_ * (size_ + 1) / 2);
  EXPECT_EQ(most.Values()[0], size_ - 1);
  const std::vector<int32_t> all = gathered.Values();
  for (int i = 0; i < size_ * 5; ++i) EXPECT_EQ(all[i], i / 5);
  const std::vector<int32_t> from_previous = received.Values();
  EXPECT_EQ(std::count(from_previous.begin(), from_previous.end(), previous), large);
}

TEST_P(CommTest, BroadcastFromEveryRoot) {
  for (int root = 0; root < size_; ++root) {
    for (int64_t count : {0, 1, 300001}) {
      const auto x = Put(rank_ == root ? Numbers<int32_t>(count, root) : std::vector<int32_t>(count, -1));
      comm_->Broadcast(*stream_, x.view(), root);
      EXPECT_EQ(x.Values(), Numbers<int32_t>(count, root));
    }
  }
}

TEST_P(CommTest, SplitGroupsByColorAndOrdersByKey) {
  const auto group = comm_->Split(rank_ % 2, -rank_);
  const int members = (size_ + 1 - rank_ % 2) / 2;
  EXPECT_EQ(group->size(), members);
  EXPECT_EQ(group->rank(), members - 1 - rank_ / 2);
  const auto gathered = Put(std::vector<int32_t>(members)), mine = Put<int32_t>({rank_});
  group->AllGather(*stream_, mine.view(), gathered.view());
  const std::vector<int32_t> all = gathered.Values();
  group->Barrier();
  EXPECT_TRUE(std::is_sorted(all.rbegin(), all.rend()));
  for (int32_t member : all) EXPECT_EQ(member % 2, rank_ % 2);
}

// Memory for one communicator of NCCL's, not for two.
TEST_P(CommTest, OnGpusAGroupOfAllRanksIsTheWorlds) {
  const bool gpu = device_->kind() == DeviceKind::kGpu;
  for (const int64_t cp : {1, size_}) {
    const Mesh mesh(MakeMpiWorld(), 0, cp, *device_, Transport::kAuto);
    const auto sum = Put<int32_t>({rank_ + 1});
    (cp == size_ ? mesh.cp() : mesh.dp()).AllReduce(*stream_, sum.view(), ReduceOp::kSum);
    EXPECT_EQ(sum.Values(), std::vector<int32_t>{size_ * (size_ + 1) / 2});
    EXPECT_EQ(&mesh.cp() == &mesh.world(), gpu && cp == size_);
    EXPECT_EQ(&mesh.dp() == &mesh.world(), gpu && cp == 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Places, CommTest, testing::ValuesIn(test::Places()), test::PlaceName);

}  // namespace
}  // namespace longspan
