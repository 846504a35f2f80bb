// The table of where ranks compute, and what is said against it.
#include "launch/job/placement.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>

namespace longspan {
namespace {

// `ranks` ranks on each of `nodes` nodes with a GPU each, neighbours on a node.
std::vector<RankPlace> Cluster(int nodes, int ranks) {
  std::vector<RankPlace> places;
  for (int node = 0; node < nodes; ++node) {
    for (int i = 0; i < ranks; ++i) {
      places.push_back({.node = "n" + std::to_string(node + 1),
                        .device = "H100",
                        .bus = "0000:0" + std::to_string(i) + ":00.0",
                        .cpus = "0-7",
                        .numa = "0",
                        .gpu_numa = "0",
                        .bound = "by longspan",
                        .versions = "Open MPI v4.1.4, NCCL 2.28.3, driver 580.65.06"});
    }
  }
  return places;
}

int64_t Lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

TEST(Placement, NodesThatAreAlikeTakeOneLine) {
  const std::string table = PlacementTable(Cluster(4, 8));
  EXPECT_EQ(Lines(table), 1 + 8 + 1 + 1) << table;  // head, n1, the others, versions
  EXPECT_NE(table.find("8-31  n2 n3 n4: as n1\n"), std::string::npos) << table;
  EXPECT_NE(table.find("0000:07:00.0"), std::string::npos) << table;
  EXPECT_NE(table.find("versions   Open MPI v4.1.4, NCCL 2.28.3, driver 580.65.06\n"), std::string::npos) << table;
}

TEST(Placement, RanksThatAreAlikeTakeOneLine) {
  std::vector<RankPlace> places = Cluster(2, 4);
  for (RankPlace& place : places) place.bus = "";
  const std::string table = PlacementTable(places);
  EXPECT_EQ(Lines(table), 1 + 1 + 1 + 1) << table;
  EXPECT_NE(table.find("0-3  n1"), std::string::npos) << table;
}

TEST(Placement, ANodeThatIsOtherHasItsOwnLines) {
  std::vector<RankPlace> places = Cluster(4, 2);
  places[4].bound = "unbound";
  const std::string table = PlacementTable(places);
  EXPECT_NE(table.find("2-3,6-7  n2 n4: as n1\n"), std::string::npos) << table;
  EXPECT_NE(table.find("4  n3 "), std::string::npos) << table;
}

TEST(Placement, OtherVersionsAreWarnedOf) {
  std::vector<RankPlace> places = Cluster(2, 2);
  places[3].versions = "Open MPI v4.1.4, NCCL 2.27.1, driver 580.65.06";
  const std::string table = PlacementTable(places);
  EXPECT_NE(table.find("warning: the ranks have different libraries or drivers:\n"), std::string::npos) << table;
  EXPECT_NE(table.find("  ranks 3: Open MPI v4.1.4, NCCL 2.27.1"), std::string::npos) << table;
  EXPECT_NE(table.find("  ranks 0-2: Open MPI v4.1.4, NCCL 2.28.3"), std::string::npos) << table;
}

TEST(Placement, GroupsThatNeedNotBeSplitAreWarnedOf) {
  std::vector<RankPlace> places = Cluster(4, 4);
  EXPECT_EQ(NeedlessSplit(places, 4), "");
  EXPECT_EQ(NeedlessSplit(places, 2), "");
  EXPECT_EQ(NeedlessSplit(places, 8), "");  // two nodes are needed
  EXPECT_EQ(NeedlessSplit(places, 16), "");
  for (int rank = 0; rank < 16; ++rank) places[rank].node = "n" + std::to_string(rank % 4 + 1);
  EXPECT_EQ(NeedlessSplit(places, 1), "");
  EXPECT_EQ(NeedlessSplit(places, 16), "");
  const std::string warning = NeedlessSplit(places, 4);
  EXPECT_EQ(warning.find("warning: the 4 cp groups of 4 ranks lie on 16 nodes in all where 4 would do"), 0u) << warning;
  EXPECT_NE(warning.find("mpirun --map-by slot"), std::string::npos);
  EXPECT_NE(warning.find("srun --distribution=block"), std::string::npos);
}

TEST(Placement, Ranges) {
  EXPECT_EQ(RangesText({}), "");
  EXPECT_EQ(RangesText({3}), "3");
  EXPECT_EQ(RangesText({0, 1, 2, 3, 8, 10, 11}), "0-3,8,10-11");
}

TEST(Placement, EveryRankKnowsAll) {
  const auto world = MakeMpiWorld();
  const auto place_of = [](int rank) {
    RankPlace place;
    place.node = "n" + std::to_string(rank);
    place.versions = "some, of two words";
    return place;
  };
  const std::vector<RankPlace> all = GatherPlaces(*world, place_of(world->rank()));
  ASSERT_EQ(std::ssize(all), world->size());
  for (int rank = 0; rank < world->size(); ++rank) EXPECT_EQ(all[rank], place_of(rank));
}

}  // namespace
}  // namespace longspan
