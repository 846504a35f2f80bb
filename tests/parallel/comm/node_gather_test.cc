// Nodes change how things travel, never what arrives: the same bits as on one node, whatever share of the ranks a node
// has; and what crosses the network is no more than each node needs once.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "parallel/comm/comm.h"
#include "parallel/comm/nodes.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

template <typename T>
Tensor View(std::vector<T>& x) {
  return HostView(x.data(), {static_cast<int64_t>(x.size())});
}

class NodeGatherTest : public testing::TestWithParam<int> {
 protected:
  std::vector<float> Random(int64_t count) {
    std::mt19937 random(rank_ + 1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> x(count);
    for (float& value : x) value = uniform(random);
    return x;
  }
  // Each rank has another size; rank 3 nothing.
  std::vector<int64_t> Counts() const {
    std::vector<int64_t> counts;
    for (int rank = 0; rank < size_; ++rank) counts.push_back(rank == 3 ? 0 : 1000 + 7 * rank);
    return counts;
  }
  std::vector<float> Gathered(Communicator& comm, bool in_place) {
    const std::vector<int64_t> counts = Counts();
    int64_t total = 0, begin = 0;
    for (int rank = 0; rank < size_; ++rank) {
      if (rank == rank_) begin = total;
      total += counts[rank];
    }
    std::vector<float> all(total), own = Random(counts[rank_]);
    const Tensor place = View(all).Rows(begin, counts[rank_]);
    std::copy(own.begin(), own.end(), all.begin() + begin);
    comm.AllGather(*stream_, in_place ? place : View(own), View(all), counts);
    return all;
  }
  std::vector<float> Reduced(Communicator& comm, int64_t count) {
    std::vector<float> x = Random(count);
    comm.AllReduce(*stream_, View(x), ReduceOp::kSum);
    return x;
  }
  std::vector<float> Scattered(Communicator& comm) {
    std::vector<float> all = Random(501 * size_), own(501);
    comm.ReduceScatter(*stream_, View(all), View(own));
    return own;
  }
  // Of all ranks.
  double FarBytes(const char* name) {
    double far = Trace::Get().totals()[name].far;
    flat_->AllReduce(*stream_, HostView(&far, {1}), ReduceOp::kSum);
    return far;
  }

  const int ranks_of_node_ = GetParam();
  const std::unique_ptr<Stream> stream_ = MakeCpuDevice()->MakeStream("comm");
  const std::unique_ptr<Communicator> flat_ = MakeMpiWorld(), nodes_ = MakeMpiWorld(ranks_of_node_);
  const int rank_ = flat_->rank(), size_ = flat_->size();
};

TEST_P(NodeGatherTest, TheSameBitsAsOnOneNode) {
  for (const bool in_place : {false, true}) EXPECT_EQ(Gathered(*nodes_, in_place), Gathered(*flat_, in_place));
  for (const int64_t count : {5, 100003}) EXPECT_EQ(Reduced(*nodes_, count), Reduced(*flat_, count));
  EXPECT_EQ(Scattered(*nodes_), Scattered(*flat_));
}

TEST_P(NodeGatherTest, AGatherCrossesTheNetworkOnceForANode) {
  Trace::Get().Reset();
  Gathered(*nodes_, true);
  const int nodes = (size_ + ranks_of_node_ - 1) / ranks_of_node_;
  double expected = 0;
  for (const int64_t count : Counts()) expected += 4.0 * static_cast<double>(count) * (nodes - 1);
  EXPECT_EQ(FarBytes("comm.all_gather"), expected);
  Trace::Get().Reset();
  Gathered(*flat_, true);
  EXPECT_EQ(FarBytes("comm.all_gather"), 0);
}

// Each rank alone, and neighbours of two nodes.
TEST_P(NodeGatherTest, AGroupOfSomeRanksKnowsTheirNodes) {
  const auto group = nodes_->Split(rank_ / 2, -rank_);
  std::vector<int32_t> all(group->size()), own = {rank_};
  Trace::Get().Reset();
  group->AllGather(*stream_, View(own), View(all));
  for (int i = 0; i < group->size(); ++i) EXPECT_EQ(all[i], rank_ / 2 * 2 + group->size() - 1 - i);
  const int other = rank_ ^ 1;
  const bool far = other < size_ && other / ranks_of_node_ != rank_ / ranks_of_node_;
  EXPECT_EQ(Trace::Get().totals()["comm.all_gather"].far, far ? 4 : 0);
}

INSTANTIATE_TEST_SUITE_P(RanksOfANode, NodeGatherTest, testing::Values(1, 2, 3));

// What one node gives another is received by all its ranks in turn.
TEST(NodeMap, ReceiversTakeTurns) {
  const NodeMap nodes({0, 0, 0, 0, 7, 7});
  EXPECT_TRUE(nodes.shares());
  for (const int to : {4, 5}) {
    for (const int from : {0, 1, 2, 3}) EXPECT_EQ(nodes.Receiver(from, to), 4 + from % 2);
  }
  for (const int to : {0, 1, 2, 3}) {
    for (const int from : {4, 5}) EXPECT_EQ(nodes.Receiver(from, to), from - 4);
  }
  EXPECT_EQ(nodes.Receiver(1, 3), 3);
  EXPECT_EQ(nodes.far(0), 2);
  EXPECT_EQ(nodes.far(5), 4);
  EXPECT_FALSE(NodeMap({1, 2, 3}).shares());
  EXPECT_FALSE(NodeMap({1, 1, 1}).shares());
}

}  // namespace
}  // namespace longspan
