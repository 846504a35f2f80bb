// What is said of links that were measured, and which wrong collectives are found. Real links:
// tests/launch/nodes_test.sh.
#include "launch/commands/links.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "runtime/memory.h"

namespace longspan {
namespace {

// Two ranks on each of four nodes: 10 GB/s and 1 us within, 1 GB/s and 20 us between.
LinkReport FourNodes() {
  LinkReport found;
  found.nodes = {"n1", "n1", "n2", "n2", "n3", "n3", "n4", "n4"};
  for (int from = 0; from < 8; ++from) {
    for (int to = 0; to < 8; ++to) {
      const bool near = from / 2 == to / 2;
      if (from != to) found.links.push_back({from, to, near ? 1.0 : 20.0, near ? 10.0 : 1.0, 1 << 20});
    }
  }
  return found;
}

TEST(Links, EveryPairOnceAndNoRankTwiceInARound) {
  for (int ranks = 1; ranks <= 17; ++ranks) {
    std::set<std::pair<int, int>> pairs;
    for (const auto& round : PairRounds(ranks)) {
      std::set<int> busy;
      for (const auto& [a, b] : round) {
        ASSERT_TRUE(0 <= a && a < b && b < ranks);
        ASSERT_TRUE(busy.insert(a).second && busy.insert(b).second) << ranks << " ranks: " << a << " and " << b;
        ASSERT_TRUE(pairs.emplace(a, b).second);
      }
    }
    EXPECT_EQ(pairs.size(), static_cast<size_t>(ranks) * (ranks - 1) / 2);
  }
}

TEST(Links, LinksOfAKindAreCompared) {
  const LinkReport found = FourNodes();
  EXPECT_TRUE(SlowLinks(found).empty());  // links between nodes are not slow ones of those within
  EXPECT_NE(LinkTable(found).find("no link is far slower"), std::string::npos) << LinkTable(found);
}

TEST(Links, OneSlowLinkIsNamedWithItsDirection) {
  LinkReport found = FourNodes();
  for (Link& link : found.links) {
    if (link.from == 1 && link.to == 0) link.gbps = 2;
  }
  const auto slow = SlowLinks(found);
  ASSERT_EQ(slow.size(), 1u);
  EXPECT_EQ(slow[0].median, 10);
  EXPECT_NE(LinkTable(found).find("slow link: rank 1 (n1) -> rank 0 (n1): 2 GB/s"), std::string::npos);
}

TEST(Links, ANodeWithASlowAdapterIsNamed) {
  LinkReport found = FourNodes();
  for (Link& link : found.links) {
    const bool between = found.nodes[link.from] != found.nodes[link.to];
    if (between && found.nodes[link.from] == "n3") link.gbps = 0.1;
  }
  const auto slow = SlowLinks(found);
  EXPECT_EQ(slow.size(), 12u);
  EXPECT_EQ(SlowPlace(found, slow), "node n3");
  EXPECT_NE(LinkTable(found).find("all slow links are those of node n3"), std::string::npos) << LinkTable(found);
}

TEST(Links, ALateLinkIsNamed) {
  LinkReport found = FourNodes();
  found.links.back().us = 900;  // of rank 7, within its node
  const auto slow = SlowLinks(found);
  ASSERT_EQ(slow.size(), 1u);
  EXPECT_TRUE(slow[0].late);
}

// The known trap: a part of what this rank sent, where all ranks' should be added.
class Slicing : public Communicator {
 public:
  explicit Slicing(std::unique_ptr<Communicator> right) : right_(std::move(right)) {}
  int rank() const override { return right_->rank(); }
  std::string transport() const override { return right_->transport(); }
  int size() const override { return right_->size(); }
  uint32_t group() const override { return right_->group(); }
  void AllReduce(Stream& stream, const Tensor& x, ReduceOp op) override { right_->AllReduce(stream, x, op); }
  void AllGather(Stream& stream, const Tensor& send, const Tensor& receive,
                 const std::vector<int64_t>& counts) override {
    right_->AllGather(stream, send, receive, counts);
  }
  void ReduceScatter(Stream&, const Tensor& send, const Tensor& receive, const std::vector<int64_t>& counts) override {
    int64_t begin = 0;
    for (int r = 0; r < rank(); ++r) begin += counts[r];
    std::memcpy(receive.data, send.Rows(begin, receive.size()).data, receive.bytes());
  }
  void AllToAll(Stream& stream, const Tensor& send, const std::vector<int64_t>& send_counts, const Tensor& receive,
                const std::vector<int64_t>& receive_counts) override {
    right_->AllToAll(stream, send, send_counts, receive, receive_counts);
  }
  void SendReceive(Stream& stream, const std::vector<Transfer>& batch) override { right_->SendReceive(stream, batch); }
  void Message(Stream& stream, const Transfer& transfer) override { right_->Message(stream, transfer); }
  void Broadcast(Stream& stream, const Tensor& x, int root) override { right_->Broadcast(stream, x, root); }
  void Barrier() override { right_->Barrier(); }
  std::unique_ptr<Communicator> Split(int color, int key) override { return right_->Split(color, key); }

 private:
  std::unique_ptr<Communicator> right_;
};

TEST(Links, AWrongCollectiveIsNamed) {
  const auto device = MakeCpuDevice();
  const auto stream = device->MakeStream("test");
  const CollectiveCheck good = CheckCollectives(*MakeMpiWorld(), *device, *stream);
  EXPECT_EQ(good.wrong, "");
  EXPECT_GE(good.calls, 100);
  Slicing slicing(MakeMpiWorld());
  const std::string wrong = CheckCollectives(slicing, *device, *stream).wrong;
  if (slicing.size() == 1) {
    EXPECT_EQ(wrong, "");  // of one rank the slice is the sum
  } else {
    EXPECT_EQ(wrong.find("reduce-scatter of F32 over "), 0u) << wrong;
    EXPECT_NE(wrong.find("expected"), std::string::npos);
  }
}

}  // namespace
}  // namespace longspan
